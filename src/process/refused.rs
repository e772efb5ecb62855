//! Why this machine itself refuses a connection, before it reaches anybody.

use rustix::io::Errno;
use std::io;

/// What to do about a connection that this machine does not let out, in whole sentences. `None` if the other side may have
/// answered.
pub fn advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM) => Some(
            "This machine forbids the address: highwater.service has IPAddressDeny=any and allows only private networks. Add \
             `IPAddressAllow=` with the address in `systemctl edit highwater` and restart, or look at the firewall",
        ),
        Some(Errno::ACCESS) => Some(
            "This machine forbids it: a unix socket must let the signer's user write to it, and the ports that the signer may \
             use are those of the configuration it was started with",
        ),
        // The kernel drops what IPAddressDeny= forbids, and TCP sends it again until the time is up.
        _ if error.kind() == io::ErrorKind::TimedOut => Some(
            "Is the machine up, and the address right? A firewall can be in the way, and so can IPAddressDeny=any of \
             highwater.service: `systemctl edit highwater` and `IPAddressAllow=` let an address through",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_machine_refuses_names_its_rules() {
        for (errno, word) in [
            (Errno::PERM, Some("IPAddressAllow=")),
            (Errno::ACCESS, Some("unix socket")),
            (Errno::TIMEDOUT, Some("IPAddressDeny=any")),
            (Errno::CONNREFUSED, None),
            (Errno::HOSTUNREACH, None),
        ] {
            let text = advice(&errno.into());
            assert_eq!(text.is_some(), word.is_some(), "{errno:?}");
            assert!(word.is_none_or(|word| text.unwrap().contains(word)), "{errno:?}: {text:?}");
        }
        assert!(advice(&io::ErrorKind::TimedOut.into()).is_some(), "std's own time limit");
    }
}
