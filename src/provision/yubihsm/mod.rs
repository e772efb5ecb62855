//! Administering a YubiHSM.
//!
//! | file | what |
//! | --- | --- |
//! | `console` | a session with administrator's rights |
//! | `setup`, `words` | the first setup, from 24 words |
//! | `backup` | wrapped copies of keys |

pub mod backup;
pub mod console;
pub mod setup;
pub mod words;
