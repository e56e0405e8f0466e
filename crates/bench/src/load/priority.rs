//! The priority of the load generator.

/// Puts the calling thread ahead of the servers, where the system lets it: Linux's `SCHED_RR` (sched(7)), which takes root or
/// `CAP_SYS_NICE`. Callers are on other machines, where no server keeps them from a processor: without this, what they wait for
/// one counts as the server's latency. Whether it does now.
pub(super) fn go_first() -> bool {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let first = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, first).is_ok()
}

/// Whether the system lets a load generator at a fixed rate go first.
pub fn may_go_first() -> bool {
    // On a thread that ends with it.
    std::thread::spawn(go_first).join().unwrap_or(false)
}
