//! How soon the kernel runs a thread that others compete with for a core.
//!
//! Owns the two system calls that no library wraps. It must not know what the threads do.
//!
//! A thread that wakes takes the core from one with a longer slice at once (EEVDF with `PREEMPT_SHORT`, Linux 6.12 and
//! later); otherwise it waits for up to the rest of that slice, by default 3 ms. That would add 3 ms to the deadline of
//! a pick whose worker has the ticker's core, and to a request that arrives while a shadow loops. A slice takes no
//! privilege and gives no thread more of the core than others.
//!
//! Source: Linux, `Documentation/scheduler/sched-eevdf.rst`; Stoica and Abdel-Wahab, "Earliest Eligible Virtual Deadline
//! First" (1995).

use std::time::Duration;

/// The shortest that the kernel takes.
pub const SLICE_MIN: Duration = Duration::from_micros(100);

/// Asks for slices of this length for the calling thread. Older kernels take no notice, and without the right to it
/// the thread competes like anyone else: nothing depends on it but time.
pub fn take_slices_of(slice: Duration) {
    #[cfg(target_os = "linux")]
    set_slice(slice);
    #[cfg(not(target_os = "linux"))]
    let _ = slice;
}

/// Has the calling thread run when nobody else wants its core (`SCHED_IDLE`): it then gets 3 parts of 1027 of a busy core,
/// and whoever wakes takes the core from it at once. Takes no privilege; where it fails, the thread competes like anyone
/// else. Such a thread must hold nothing that others wait for.
pub fn run_in_idle_time() {
    #[cfg(target_os = "linux")]
    set_idle();
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "neither std nor rustix wraps sched_setscheduler")]
fn set_idle() {
    // SAFETY: all zeros are a value of this struct of integers; and the priority that this class has to have.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the struct, which lives on; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "neither std nor rustix wraps sched_getattr and sched_setattr"
)]
fn set_slice(slice: Duration) {
    // SAFETY: all zeros are a value of this struct of integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let bytes = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `bytes` bytes to the struct, which lives on; 0 is the calling thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    // Real-time classes preempt anyway, and their fields mean something else.
    if got != 0 || i64::from(attributes.sched_policy) != i64::from(libc::SCHED_OTHER) {
        return;
    }
    attributes.size = u32::try_from(bytes).unwrap_or(0);
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes of the struct, which lives on; 0 is the calling thread.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "as in the code tested")]
    fn the_kernel_keeps_the_slice_where_it_knows_of_slices() {
        let runtime = || {
            // SAFETY: as in `set_slice`.
            let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
            let bytes = size_of::<libc::sched_attr>();
            // SAFETY: as in `set_slice`.
            let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
            assert_eq!(got, 0);
            attributes.sched_runtime
        };
        let before = runtime();
        take_slices_of(SLICE_MIN);
        // Before Linux 6.12 there is nothing to read, before and after.
        let wanted = if before == 0 { 0 } else { 100_000 };
        assert_eq!(runtime(), wanted);
    }

    #[test]
    #[allow(unsafe_code, reason = "as in the code tested")]
    fn a_thread_may_ask_for_idle_time_and_no_other_follows() {
        // SAFETY: 0 is the calling thread, and nothing is written.
        let class = || unsafe { libc::sched_getscheduler(0) };
        let before = class();
        let of_the_other = std::thread::spawn(move || {
            run_in_idle_time();
            class()
        });
        assert_eq!(of_the_other.join().unwrap(), libc::SCHED_IDLE);
        assert_eq!(class(), before);
    }
}
