//! What surrounds the signer in operation. Nothing here is waited for on the way from a request to its answer.
//!
//! | file | what |
//! | --- | --- |
//! | `histogram`, `stats` | what is counted |
//! | `telemetry` | all that can be seen of a running signer: chains, nodes, devices |
//! | `metrics`, `status` | the same for Prometheus, and for a person |
//! | `web` | the metrics endpoint and the control socket |
//! | `recorder` | tells what became of requests, away from the threads that answer them |
//! | `lanes` | the queues to it and to the audit file, one for each chain |
//! | `quiet` | keeps one node from filling the log |
//! | `audit` | a line in a file for every decision |
//! | `evidence`, `keeper` | what that file says was signed; who makes and renames it |
//! | `foreign` | what other programs say, made harmless |
//! | `sandbox` | what the processes of a signer can still do to their machine |
//! | `environment` | takes secrets out of it |
//! | `helper`, `names`, `hooks` | processes for what the confined signer must not do; looking up host names; running state hooks |
//! | `notify` | what systemd is told |
//! | `log`, `panic` | lines on standard error; what a panic ends |
//! | `signals` | signals that end no process of ours |

pub mod audit;
pub mod environment;
pub mod evidence;
pub mod foreign;
pub mod helper;
pub mod histogram;
pub mod hooks;
pub mod keeper;
pub mod lanes;
pub mod log;
pub mod metrics;
pub mod names;
pub mod notify;
pub mod panic;
pub mod quiet;
pub mod recorder;
pub mod sandbox;
pub mod signals;
pub mod stats;
pub mod status;
pub mod telemetry;
pub mod utc;
pub mod web;
