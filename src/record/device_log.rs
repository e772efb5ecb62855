//! What a device's own log says, as lines of the audit file.
//!
//! | field | meaning |
//! | --- | --- |
//! | `time` | when the entry was read from the device, in milliseconds since 1970 |
//! | `device` | the device, by its section |
//! | `result` | `device-log` |
//! | `entry` | its number on the device, which goes up by one |
//! | `command`, `length` | the code of the command, and the length of what was sent with it |
//! | `session_key`, `target_key`, `second_key` | object ids; 65535 for none |
//! | `answer` | the code of the answer: that of the command with bit 7 set, or an error |
//! | `tick` | the device's clock |
//! | `digest` | the device's digest over this entry and the digest before it |
//! | `proven` | whether that digest is right: `false` means that an entry was changed or is missing before this one |

use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// One entry of a device's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceLogEntry {
    pub(crate) entry: u16,
    pub(crate) command: String,
    pub(crate) length: u16,
    pub(crate) session_key: u16,
    pub(crate) target_key: u16,
    pub(crate) second_key: u16,
    pub(crate) answer: String,
    pub(crate) tick: u32,
    pub(crate) digest: String,
    pub(crate) proven: bool,
}

/// Its line of the audit file.
#[derive(Serialize)]
struct DeviceLine<'a> {
    time: u64,
    device: &'a str,
    result: &'static str,
    #[serde(flatten)]
    entry: &'a DeviceLogEntry,
}

/// A line for each entry.
pub(crate) fn lines(device: &str, entries: &[DeviceLogEntry]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for entry in entries {
        let line = DeviceLine { time, device, result: "device-log", entry };
        text += &serde_json::to_string(&line).expect("numbers and strings have a JSON form");
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::{Evidence, LINE_BEGINS};

    #[test]
    fn an_entry_has_a_line_that_shows_nothing_as_signed() {
        let entry = DeviceLogEntry {
            entry: 7,
            command: "0x6a".into(),
            length: 130,
            session_key: 1,
            target_key: 2,
            second_key: 65535,
            answer: "0xea".into(),
            tick: 9,
            digest: "00ff".into(),
            proven: true,
        };
        let text = lines("YubiHSM at tcp://h:1", &[entry.clone(), entry]);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert!(line.starts_with(LINE_BEGINS), "{line}");
            assert!(line.contains("\"result\":\"device-log\",\"entry\":7,\"command\":\"0x6a\""), "{line}");
            let mut evidence = Evidence::default();
            evidence.look_at(line.as_bytes()).unwrap();
            assert_eq!(evidence, Evidence::default());
        }
    }
}
