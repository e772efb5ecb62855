//! What others can see of a running signer.
//!
//! | file | what |
//! | --- | --- |
//! | `telemetry` | everything there is to see: chains, nodes, devices |
//! | `metrics` | the same for Prometheus |
//! | `status` | the same for a person: `highwater status` |
//! | `web` | the metrics endpoint and the control socket |
//! | `systemd` | readiness and the watchdog |

pub mod metrics;
pub mod status;
pub mod systemd;
pub mod telemetry;
pub mod web;
