//! Calls into tendermint-p2p, which a peer can make panic.
//!
//! A chunk longer than its read buffer and an authentication message with trailing bytes both panic inside that
//! crate. State lives elsewhere, so such a panic may end the connection and nothing else. Any other panic ends the
//! process: the hook in `ops::panic` asks [`is_contained`].

use super::LinkError;
use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the current thread is inside a contained call.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Runs `call`, which goes into tendermint-p2p and nowhere else. After a panic the caller drops the connection, so
/// nobody sees what the call left half done.
pub(super) fn contain<T>(call: impl FnOnce() -> T) -> Result<T, LinkError> {
    CONTAINED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(false);
    result.map_err(|payload| LinkError::Panic(text_of(payload.as_ref())))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_an_error_and_the_mark_is_taken_back() {
        let result = contain(|| {
            assert!(is_contained());
            panic!("played");
        });
        assert!(matches!(result, Err(LinkError::Panic(text)) if text == "played"));
        assert!(!is_contained());
        assert_eq!(contain(|| 5).unwrap(), 5);
    }
}
