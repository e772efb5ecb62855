//! Administering a YubiHSM.
//!
//! | file | what |
//! | --- | --- |
//! | `admin_session` | a session with administrator's rights |
//! | `setup`, `words` | the first setup, from 24 words |
//! | `backup` | wrapped copies of keys |

pub mod admin_session;
pub mod backup;
pub mod setup;
pub mod words;
