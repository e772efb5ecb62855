//! Records the result of each request after its answer has left. No request ever waits for anything here.
//!
//! | file | what |
//! | --- | --- |
//! | `clock` | the time of a log line |
//! | `event` | the log line of one request |
//! | `histogram`, `stats` | counters |
//! | `served` | a chain with its counters |
//! | `lanes` | the queues to the recorder and to the audit file, one for each chain |
//! | `recorder` | logs each event, on its own thread |
//! | `quiet` | keeps one node from filling the log |
//! | `audit` | the audit file: a line for every decision |
//! | `device_log` | what a device's own log says, as lines of that file |
//! | `evidence`, `keeper` | what the audit file shows as signed; the process that creates and renames the file |
//! | `log`, `utc` | lines on standard error, and their times |

pub(crate) mod audit;
pub(crate) mod clock;
pub(crate) mod device_log;
pub(crate) mod event;
pub mod evidence;
pub(crate) mod histogram;
pub(crate) mod keeper;
pub(crate) mod lanes;
pub(crate) mod log;
pub(crate) mod quiet;
pub(crate) mod recorder;
pub(crate) mod served;
pub(crate) mod stats;
pub mod utc;
