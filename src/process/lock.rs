use std::sync::{Mutex, MutexGuard};

/// Locks a mutex. A panic ends the process, so a lock is never poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the lock is never poisoned")
}
