// For a program under valgrind that starts itself again by /proc/self/exe: there, that is valgrind's own program, which
// cannot run under valgrind. Preloaded, this puts the path of $COUNTED_PROGRAM in its place.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>

static const char *real(const char *path) {
    const char *program = getenv("COUNTED_PROGRAM");
    return program && !strcmp(path, "/proc/self/exe") ? program : path;
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    int (*next)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                char *const[], char *const[]) = dlsym(RTLD_NEXT, "posix_spawnp");
    return next(pid, real(path), actions, attributes, arguments, environment);
}

int execvp(const char *path, char *const arguments[]) {
    int (*next)(const char *, char *const[]) = dlsym(RTLD_NEXT, "execvp");
    return next(real(path), arguments);
}
