//! Administration of devices: what commands do to a token or a YubiHSM, and a running signer never does.
//!
//! | file | what |
//! | --- | --- |
//! | `pkcs11` | makes, imports, lists and deletes keys on a PKCS#11 token |
//! | `yubihsm` | sets a YubiHSM up, makes its keys and backs them up |

pub mod pkcs11;
pub(crate) mod yubihsm;
