//! How soon the kernel runs a thread that others compete with for a core.
//!
//! Owns the one system call that no library wraps. It must not know what the threads do.
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
}
