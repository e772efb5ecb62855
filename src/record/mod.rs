//! What becomes of each request, written down after its answer has left. No request ever waits for anything here.
//!
//! | file | what |
//! | --- | --- |
//! | `event` | what became of one request |
//! | `histogram`, `stats` | counters |
//! | `served` | a chain with its counters |
//! | `lanes` | the queues to the recorder and to the audit file, one for each chain |
//! | `recorder` | logs each event, away from the threads that answer |
//! | `quiet` | keeps one node from filling the log |
//! | `audit` | the audit file: a line for every decision |
//! | `evidence`, `keeper` | what that file says was signed; the process that makes and renames it |
//! | `foreign` | text from other programs, made harmless |
//! | `log`, `utc` | lines on standard error, and their times |

pub mod audit;
pub mod event;
pub mod evidence;
pub mod foreign;
pub mod histogram;
pub mod keeper;
pub mod lanes;
pub mod log;
pub mod quiet;
pub mod recorder;
pub mod served;
pub mod stats;
pub mod utc;
