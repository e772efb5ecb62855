use std::sync::{Mutex, MutexGuard};

/// Locks a mutex. A panic ends the process, so a lock is never poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with this lock")
}
