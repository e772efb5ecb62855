//! Administration of a YubiHSM.
//!
//! | file | what |
//! | --- | --- |
//! | `admin_session` | a session with administrator's rights |
//! | `setup`, `words` | the first setup, from 24 words |
//! | `backup` | wrapped copies of keys |

pub(crate) mod admin_session;
pub(crate) mod backup;
pub(crate) mod setup;
pub(crate) mod words;
