//! Shows a running signer to the outside.
//!
//! | file | what |
//! | --- | --- |
//! | `telemetry` | everything that can be shown: chains, nodes, devices |
//! | `metrics` | the same for Prometheus |
//! | `status` | the same for a person: `highwater status` |
//! | `web` | the metrics endpoint and the control socket |
//! | `systemd` | readiness and the watchdog |

pub(crate) mod metrics;
pub(crate) mod status;
pub(crate) mod systemd;
pub(crate) mod telemetry;
pub mod web;
