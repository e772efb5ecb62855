//! Inspects who could replace a file that decides what is signed, or with what.
//!
//! Only root and the user of this process may. That holds for the file, for every directory on the way to it, and for every
//! link. A directory with the sticky bit (`/tmp`) passes, because nobody can replace other users' files in it.
//!
//! Write permission for a group is a warning and not a refusal: somebody chose its members. There is no
//! warning about our user's private group (most systems give each user one with the user's number), nor about root's group.
//! State files and secrets are checked more strictly when they are opened: no group at all.

use super::{Severity, Subject};
use crate::config::FileKind;
use rustix::process::{getegid, geteuid};
use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

const ROOT: u32 = 0;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;
/// As many as Linux follows.
const LINKS_MAX: usize = 40;

/// Why a file cannot be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) severity: Severity,
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Why the code in a PKCS#11 module may be somebody else's. Commands ask before they load it: it gets the PIN.
pub fn refuse_module(path: &Path) -> Result<(), String> {
    let flaws = Guards::new(Us::now()).flaws(&Subject::Signer, path, "PKCS#11 module", FileKind::Program);
    match flaws.into_iter().find(|flaw| flaw.severity == Severity::Fail) {
        None => Ok(()),
        Some(Flaw { what, remedy, .. }) => Err(format!("{what}, and it gets the token's PIN: {remedy}")),
    }
}

/// Who may own and write such a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Us {
    user: u32,
    group: u32,
    /// The owner shown for users without a number here, if root itself has none: then its files pass.
    unknown: Option<u32>,
}

impl Us {
    /// The user and group of this process.
    pub(super) fn now() -> Self {
        const OVERFLOW: u32 = 65_534;
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let overflow = || fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
        let unknown = (!knows_root(&map)).then(|| overflow().unwrap_or(OVERFLOW));
        Self { user: geteuid().as_raw(), group: getegid().as_raw(), unknown }
    }

    fn trusts(self, owner: u32) -> bool {
        owner == ROOT || owner == self.user || Some(owner) == self.unknown
    }

    /// Whether a group has no members but us, as far as numbers show.
    fn is_own_group(self, group: u32) -> bool {
        group == ROOT || (group == self.group && group == self.user)
    }
}

/// The name of a user of this machine.
fn name_of(user: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let number = user.to_string();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(number.as_str()))?;
    line.split(':').next().map(str::to_owned)
}

/// Whether the root of the surrounding namespace has a number in ours. Without a map there are no namespaces.
fn knows_root(map: &str) -> bool {
    map.is_empty() || map.lines().any(|line| line.split_whitespace().nth(1) == Some("0"))
}

/// Checks files, and each directory once for each subject.
pub(super) struct Guards {
    us: Us,
    seen: BTreeSet<(Subject, PathBuf)>,
}

impl Guards {
    pub(super) fn new(us: Us) -> Self {
        Self { us, seen: BTreeSet::new() }
    }

    /// Every way in which others could replace `path`, the `what` of `subject`. Does not check what is missing.
    pub(super) fn flaws(&mut self, subject: &Subject, path: &Path, what: &str, kind: FileKind) -> Vec<Flaw> {
        // Nobody but the system and the service comes to it.
        if kind == FileKind::Credential {
            return Vec::new();
        }
        // Without a working directory nothing can be opened either.
        let Ok(trail) = Trail::of(path) else { return Vec::new() };
        let mut flaws = Vec::new();
        for link in &trail.links {
            if let Ok(metadata) = fs::symlink_metadata(link) {
                flaws.extend(self.owner_flaw(link, &metadata, &format!("the link {} to the {what}", link.display())));
            }
        }
        for directory in &trail.directories {
            if !self.is_new(subject, directory) {
                continue;
            }
            if let Ok(metadata) = fs::metadata(directory) {
                let is_own = trail.end.parent() == Some(directory);
                let named = format!("the directory {}, on the way to the {what},", directory.display());
                flaws.extend(self.owner_flaw(directory, &metadata, &named));
                flaws.extend(self.directory_flaw(directory, &metadata, what, is_own));
            }
        }
        if let Ok(metadata) = fs::metadata(&trail.end) {
            let named = format!("the {what} {}", trail.end.display());
            flaws.extend(self.owner_flaw(&trail.end, &metadata, &named));
            match kind {
                FileKind::Program => flaws.extend(self.file_flaw(&trail.end, &metadata, &named)),
                FileKind::Secret => flaws.extend(self.left_by_root(&trail.end, &metadata, &named)),
                FileKind::Credential => {}
            }
        }
        flaws
    }

    /// What affects the whole signer is not repeated for each chain.
    fn is_new(&mut self, subject: &Subject, directory: &Path) -> bool {
        let of_all = (Subject::Signer, directory.to_owned());
        !self.seen.contains(&of_all) && self.seen.insert((subject.clone(), directory.to_owned()))
    }

    fn owner_flaw(&self, path: &Path, metadata: &Metadata, named: &str) -> Option<Flaw> {
        let (owner, path, user) = (metadata.uid(), path.display(), self.us.user);
        (!self.us.trusts(owner)).then(|| Flaw {
            severity: Severity::Fail,
            what: format!("{named} belongs to user id {owner}, but highwater runs as {user}"),
            remedy: match name_of(owner) {
                // What root makes for that user, it makes wrongly.
                Some(name) if user == ROOT => {
                    format!(
                        "run every command as the signer's user, `runuser -u {name} -- highwater …`, and not as root"
                    )
                }
                _ => format!("run highwater as that user, or run `chown {user} {path}`"),
            },
        })
    }

    /// A secret of root's in another user's directory: a command that ran as root has left it, and the signer cannot open
    /// it.
    fn left_by_root(&self, path: &Path, metadata: &Metadata, named: &str) -> Option<Flaw> {
        const OTHERS_READ: u32 = 0o004;
        let home = fs::metadata(path.parent()?).ok()?.uid();
        let user = if self.us.user == ROOT { home } else { self.us.user };
        let is_left = metadata.uid() == ROOT && home == user && user != ROOT && metadata.mode() & OTHERS_READ == 0;
        is_left.then(|| Flaw {
            // Root itself can open it.
            severity: if self.us.user == ROOT { Severity::Warn } else { Severity::Fail },
            what: format!(
                "{named} belongs to root, so that the signer, which runs as {}, cannot open it",
                name_of(user).unwrap_or_else(|| user.to_string())
            ),
            remedy: format!(
                "run `chown --reference={} {}` as root",
                path.parent().unwrap_or(path).display(),
                path.display()
            ),
        })
    }

    fn file_flaw(&self, path: &Path, metadata: &Metadata, named: &str) -> Option<Flaw> {
        let (mode, path) = (metadata.mode() & 0o7777, path.display());
        // The permissions of a shell's pipe, or of standard input, mean nothing.
        if !metadata.is_file() {
            return None;
        }
        if mode & OTHERS_WRITE != 0 {
            let what = format!("{named} can be written by every user (mode {mode:04o})");
            return Some(Flaw { severity: Severity::Fail, what, remedy: format!("run `chmod go-w {path}`") });
        }
        let group = metadata.gid();
        (mode & GROUP_WRITE != 0 && !self.us.is_own_group(group)).then(|| Flaw {
            severity: Severity::Warn,
            what: format!("{named} can be written by group id {group} (mode {mode:04o})"),
            remedy: format!("unless all its members may decide what is signed, run `chmod g-w {path}`"),
        })
    }

    /// `is_own` means that the file itself is in it.
    fn directory_flaw(&self, path: &Path, metadata: &Metadata, what: &str, is_own: bool) -> Option<Flaw> {
        let (mode, path) = (metadata.mode() & 0o7777, path.display());
        match (mode & OTHERS_WRITE != 0, mode & STICKY != 0) {
            (true, false) => Some(Flaw {
                severity: Severity::Fail,
                what: format!(
                    "every user can replace the {what}, because every user may write to the directory {path} (mode \
                     {mode:04o})"
                ),
                remedy: format!("run `chmod go-w {path}`"),
            }),
            (true, true) => is_own.then(|| Flaw {
                severity: Severity::Warn,
                what: format!("the {what} is in {path}, where every user may make files and old files are deleted"),
                remedy: "move it into a directory of its own, with mode 0700".into(),
            }),
            (false, sticky) => {
                let group = metadata.gid();
                let shared = mode & GROUP_WRITE != 0 && !sticky && !self.us.is_own_group(group);
                shared.then(|| Flaw {
                    severity: Severity::Warn,
                    what: format!(
                        "group id {group} can replace the {what}, because it may write to the directory {path} (mode \
                         {mode:04o})"
                    ),
                    remedy: format!("unless all its members may decide what is signed, run `chmod g-w {path}`"),
                })
            }
        }
    }
}

/// The path from the root to a file, step by step.
#[derive(Debug, Default)]
struct Trail {
    /// Every directory in which a name is looked up, in order.
    directories: Vec<PathBuf>,
    /// Every link that is followed.
    links: Vec<PathBuf>,
    /// What it leads to.
    end: PathBuf,
}

impl Trail {
    fn of(path: &Path) -> io::Result<Self> {
        let mut trail = Self::default();
        let absolute = std::path::absolute(path)?;
        let mut ahead: Vec<PathBuf> = steps(&absolute);
        while let Some(step) = ahead.pop() {
            match step.components().next() {
                Some(Component::RootDir) => trail.end = "/".into(),
                // Everything so far is resolved, so it has no links.
                Some(Component::ParentDir) => drop(trail.end.pop()),
                Some(Component::Normal(name)) => {
                    if !trail.directories.contains(&trail.end) {
                        trail.directories.push(trail.end.clone());
                    }
                    let next = trail.end.join(name);
                    match fs::read_link(&next) {
                        Ok(target) if trail.links.len() < LINKS_MAX => {
                            trail.links.push(next);
                            ahead.extend(steps(&target));
                        }
                        _ => trail.end = next,
                    }
                }
                _ => {}
            }
        }
        Ok(trail)
    }
}

/// The components of a path, the first of them last.
fn steps(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|component| PathBuf::from(component.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };
    use tempfile::TempDir;

    const US: Us = Us { user: 1000, group: 1000, unknown: None };

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// `directory/file`, below a temporary directory without links in its name.
    fn file() -> (TempDir, PathBuf) {
        let home = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
        fs::create_dir(home.path().join("directory")).unwrap();
        let path = home.path().join("directory/file");
        fs::write(&path, "").unwrap();
        (home, path)
    }

    fn flaws_as(us: Us, path: &Path, kind: FileKind) -> Vec<(Severity, String)> {
        let flaws = Guards::new(us).flaws(&Subject::Signer, path, "configuration", kind);
        flaws.into_iter().map(|flaw| (flaw.severity, format!("{}: {}", flaw.what, flaw.remedy))).collect()
    }

    /// As the user of this test.
    fn flaws(path: &Path) -> Vec<(Severity, String)> {
        flaws_as(Us::now(), path, FileKind::Program)
    }

    #[track_caller]
    fn assert_one(found: &[(Severity, String)], severity: Severity, words: &[&str]) {
        let [(level, text)] = found else { panic!("one flaw, not {found:?}") };
        assert_eq!(*level, severity, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is in {text}"));
    }

    #[test]
    fn what_only_its_owner_can_write_has_no_flaw() {
        let (_home, path) = file();
        assert_eq!(flaws(&path), []);
        assert_eq!(flaws(&path.with_file_name("none")), [], "what is missing is not checked");
        assert_eq!(flaws(Path::new("/nonexistent/file")), []);
    }

    #[test]
    fn what_others_can_write_fails_and_a_group_is_warned_of() {
        let (home, path) = file();
        mode(&path, 0o666);
        let command = format!("`chmod go-w {}`", path.display());
        assert_one(&flaws(&path), Severity::Fail, &["written by every user (mode 0666)", &command]);
        assert_eq!(flaws_as(Us::now(), &path, FileKind::Secret), [], "the code that opens it checks its permissions");
        mode(&path, 0o600);
        for (name, directory) in [("file", path.parent().unwrap()), ("directory", home.path())] {
            mode(directory, 0o777);
            let command = format!("`chmod go-w {}`", directory.display());
            assert_one(&flaws(&path), Severity::Fail, &["every user can replace", "(mode 0777)", &command]);
            mode(directory, 0o1777);
            if name == "file" {
                assert_one(&flaws(&path), Severity::Warn, &["move it into a directory of its own"]);
            } else {
                assert_eq!(flaws(&path), [], "nobody can rename a directory of others there");
            }
            mode(directory, 0o700);
        }
    }

    #[test]
    fn a_group_that_has_members_may_not_write_unnoticed() {
        let (_home, path) = file();
        mode(&path, 0o664);
        let group = fs::metadata(&path).unwrap().gid();
        let owner = fs::metadata(&path).unwrap().uid();
        let shared = Us { user: owner, group: group + 1, unknown: None };
        let own = Us { user: group, group, unknown: Some(owner) };
        assert_eq!(flaws_as(own, &path, FileKind::Program), []);
        if group != ROOT {
            assert_one(&flaws_as(shared, &path, FileKind::Program), Severity::Warn, &["group id", "`chmod g-w "]);
        }
        assert!(!US.is_own_group(1001) && !Us { user: 5, ..US }.is_own_group(1000));
        assert!(US.is_own_group(1000) && US.is_own_group(ROOT));
    }

    #[test]
    fn only_root_and_we_may_own_it() {
        assert!(US.trusts(ROOT) && US.trusts(1000) && !US.trusts(1001) && !US.trusts(65_534));
        assert!(!Us { user: ROOT, ..US }.trusts(1000), "root too is warned of a file of another user");
        let (_home, path) = file();
        let owner = fs::metadata(&path).unwrap().uid();
        // Seen by somebody else.
        let found = flaws_as(Us { user: owner + 1, group: 1, unknown: None }, &path, FileKind::Secret);
        match owner {
            ROOT => {
                assert_eq!(found, []);
                chown(&path, Some(4242), None).unwrap();
                let command = format!("`chown 0 {}`", path.display());
                assert_one(&flaws(&path), Severity::Fail, &["belongs to user id 4242", "runs as 0", &command]);
                // 1 is `daemon` wherever there are users.
                chown(&path, Some(1), None).unwrap();
                assert_one(&flaws(&path), Severity::Fail, &["`runuser -u daemon -- highwater …`, and not as root"]);
                // What a command of root's has left in the home of the service.
                chown(&path, Some(ROOT), None).unwrap();
                mode(&path, 0o600);
                chown(path.parent().unwrap(), Some(1), None).unwrap();
                let command = format!("`chown --reference={} {}`", path.parent().unwrap().display(), path.display());
                for (us, severity) in
                    [(Us::now(), Severity::Warn), (Us { user: 1, group: 1, unknown: None }, Severity::Fail)]
                {
                    let found = flaws_as(us, &path, FileKind::Secret);
                    let left = found.iter().filter(|(_, text)| text.contains("belongs to root"));
                    assert_one(&left.cloned().collect::<Vec<_>>(), severity, &["runs as daemon", &command]);
                }
                assert!(
                    flaws_as(Us::now(), &path, FileKind::Program).iter().all(|(_, text)| !text.contains("to root"))
                );
            }
            _ => {
                assert!(found.iter().all(|(severity, _)| *severity == Severity::Fail) && found.len() == 3, "{found:?}")
            }
        }
    }

    #[test]
    fn where_root_has_no_number_nothing_is_said_of_its_files() {
        assert!(knows_root("         0          0 4294967295\n") && knows_root("0 0 1\n998 998 1\n") && knows_root(""));
        assert!(!knows_root("0 1000 1\n") && !knows_root("0 1000 1\n1 100000 65536\n"));
        assert!(Us { unknown: Some(65_534), ..US }.trusts(65_534));
    }

    #[test]
    fn every_directory_on_the_way_is_found_also_by_links() {
        let (home, path) = file();
        let home = home.path();
        fs::create_dir(home.join("other")).unwrap();
        symlink("../directory/./file", home.join("other/relative")).unwrap();
        symlink(home.join("other/relative"), home.join("absolute")).unwrap();
        let trail = Trail::of(&home.join("absolute")).unwrap();
        assert_eq!(trail.end, path);
        assert_eq!(trail.links, [home.join("absolute"), home.join("other/relative")]);
        let last: Vec<_> = trail.directories.iter().filter(|directory| directory.starts_with(home)).collect();
        assert_eq!(last, [home, &home.join("other"), &home.join("directory")]);
        assert_eq!(trail.directories[0], Path::new("/"));

        mode(&home.join("other"), 0o777);
        assert_one(&flaws(&home.join("absolute")), Severity::Fail, &["every user", "other (mode 0777)"]);
        symlink("loop", home.join("loop")).unwrap();
        assert_eq!(flaws(&home.join("loop")).len(), 0, "a loop ends");
    }

    #[test]
    fn a_directory_is_told_once_and_not_again_of_a_chain_if_it_concerns_all() {
        let (_home, path) = file();
        mode(path.parent().unwrap(), 0o777);
        let mut guards = Guards::new(Us::now());
        let chain = Subject::Chain(highwater_core::consensus::ChainId::new("a-1").unwrap());
        let mut count = |subject: &Subject| guards.flaws(subject, &path, "state file", FileKind::Secret).len();
        assert_eq!([count(&chain), count(&chain), count(&Subject::Signer), count(&Subject::Signer)], [1, 0, 1, 0]);
        let other = Subject::Chain(highwater_core::consensus::ChainId::new("b-1").unwrap());
        assert_eq!(count(&other), 0);
    }
}
