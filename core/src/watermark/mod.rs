//! The watermark: the last thing signed for a chain, the rule over it, and the file that outlives a power cut.
//!
//! | file | what |
//! | --- | --- |
//! | `mark` | a mark, and the proof that one is on the disk |
//! | `rule` | may this be signed? Pure |
//! | `bytes` | what header and record share |
//! | `header` | the first block of a state file: its chain, key, machine and identity as a file. Pure |
//! | `record` | a mark as 512 bytes. Pure |
//! | `store` | two slots, one write and one flush for each mark, over a small disk trait |
//! | `file` | the disk: lock, permissions, creation, replacement |
//! | `host` | which machine this is |

mod bytes;
mod file;
mod header;
mod host;
mod mark;
mod record;
mod rule;
mod store;

pub use bytes::{NewerFeature, RecordError};
pub use file::{FileError, StateFile, StateReadError, create, is_state_file, read_unlocked, replace};
pub use header::{BLOCK_BYTES, FileId, Header, Identity};
pub use host::{HostError, HostId};
pub use mark::{Durable, Mark, SignedMessage};
pub use record::{Mode, RECORD_BYTES, Record};
pub use rule::{Candidate, Verdict, Violation, decide};
pub use store::{Damage, Disk, FILE_BYTES, Slot, Store, StoreError, image, newest};
