//! Things that several parts of a world hold at once.

use super::std::sync::{Mutex, MutexGuard, PoisonError};
use alloc::sync::Arc;

/// Held by several parts.
pub type Shared<T> = Arc<Mutex<T>>;

/// Something to be held by several parts.
pub fn shared<T>(thing: T) -> Shared<T> {
    Arc::new(Mutex::new(thing))
}

/// The thing itself, for a moment. A part that panicked while it held it does not matter here.
pub fn locked<T: ?Sized>(thing: &Shared<T>) -> MutexGuard<'_, T> {
    thing.lock().unwrap_or_else(PoisonError::into_inner)
}
