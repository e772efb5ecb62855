//! Compares and resolves paths.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// Whether one path is the other or lies in it: then access to one gives access to the other.
pub(crate) fn overlap(a: &Path, b: &Path) -> bool {
    let (a, b) = (as_far_as_it_exists(a), as_far_as_it_exists(b));
    a.starts_with(&b) || b.starts_with(&a)
}

/// The path with links resolved, as far as it exists.
fn as_far_as_it_exists(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let mut rest = PathBuf::new();
    for ancestor in absolute.ancestors() {
        if let Ok(there) = ancestor.canonicalize() {
            return if rest.as_os_str().is_empty() { there } else { there.join(rest) };
        }
        let name = ancestor.file_name().map(Path::new).unwrap_or(Path::new(""));
        rest = if rest.as_os_str().is_empty() { name.into() } else { name.join(rest) };
    }
    absolute
}

/// Whether both paths lead to the same file, also through links.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let node = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    a == b || real(a) == real(b) || node(a).is_some_and(|found| node(b) == Some(found))
}

/// The path without `.` and `..`, judged by its text alone.
pub(super) fn normalised(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => (),
            Component::ParentDir => match result.components().next_back() {
                Some(Component::Normal(_)) => drop(result.pop()),
                Some(Component::RootDir) => (),
                _ => result.push(component),
            },
            _ => result.push(component),
        }
    }
    result
}

/// The path with symbolic links resolved. For a file that does not exist yet, those of its directory.
pub(super) fn resolved(path: &Path) -> PathBuf {
    if let Ok(file) = fs::canonicalize(path) {
        return file;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (fs::canonicalize(directory), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => normalised(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_dots() {
        for (path, expected) in
            [("./a", "a"), ("a/./b/../c", "a/c"), ("../a", "../a"), ("a/../../b", "../b"), ("/../a", "/a")]
        {
            assert_eq!(normalised(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn paths_that_contain_each_other_overlap_even_through_links_and_before_they_exist() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("a")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        assert!(
            overlap(&at("a"), &at("a/b/c")) && overlap(&at("link/b"), &at("a")) && overlap(&at("a/b"), &at("link/b"))
        );
        assert!(!overlap(&at("a"), &at("ab")) && !overlap(&at("a/b"), &at("link/c")));
    }
}
