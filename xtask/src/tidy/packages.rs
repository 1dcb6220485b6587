//! Rules for every package that a build compiles: one TLS crypto library, one SQLite, and few packages in
//! more than one version.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// TLS crypto libraries besides aws-lc-rs: with two of them rustls finds no default at run time.
const REFUSED: [&str; 4] = ["ring", "openssl-sys", "openssl", "native-tls"];

/// Two linked versions of SQLite break each other's locks on a file.
const AT_MOST_ONCE: &str = "libsqlite3-sys";

/// Checks the output of `cargo tree`, one `name vX.Y.Z …` per line.
pub fn check(tree: &str) -> Vec<Finding> {
    let packages = versions(tree);
    let refused = REFUSED.iter().filter(|name| packages.contains_key(*name)).map(|name| {
        let fix = format!("use aws-lc-rs; `cargo tree -i {name}` shows the dependent: turn that feature off");
        Finding::new("Cargo.toml", 1, "a second TLS crypto library", fix)
    });
    let twice = packages.get(AT_MOST_ONCE).filter(|versions| versions.len() > 1).map(|versions| {
        let fix = format!("use one version of {AT_MOST_ONCE}: there are {}", list(versions));
        Finding::new("Cargo.toml", 1, "SQLite twice", fix)
    });
    refused.chain(twice).collect()
}

/// One finding for each package that the build compiles in more than one version.
pub fn duplicates(tree: &str) -> Vec<Finding> {
    let packages = versions(tree);
    let several = packages.iter().filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| {
            let fix = format!("{name} is built as {}: update what needs the older one", list(versions));
            Finding::new("Cargo.lock", 1, "a package in several versions", fix)
        })
        .collect()
}

/// The versions of each package.
fn versions(tree: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, rest) in tree.lines().filter_map(|line| line.split_once(' ')) {
        packages.entry(name).or_default().extend(rest.split(' ').next());
    }
    packages
}

fn list(versions: &BTreeSet<&str>) -> String {
    versions.iter().copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::short;
    use super::{check, duplicates};

    #[test]
    fn refuses_a_second_crypto_library() {
        for name in ["ring v0.17.14", "openssl-sys v0.9.0 (*)"] {
            assert_eq!(short(&check(&format!("serde v1.0.0\n{name}\n"))), ["1: a second TLS crypto library"]);
        }
        assert!(check("ring-buffer v1.0.0\nstring v0.3.0\n\naws-lc-rs v1.0.0\n").is_empty());
    }

    #[test]
    fn refuses_a_second_sqlite() {
        let one = "libsqlite3-sys v0.37.0\nlibsqlite3-sys v0.37.0 (*)\n";
        assert!(check(one).is_empty());
        assert_eq!(short(&check(&format!("{one}libsqlite3-sys v0.30.1\n"))), ["1: SQLite twice"]);
    }

    #[test]
    fn finds_packages_in_several_versions() {
        let tree = "serde v1.0.0\nrand v0.8.5\nserde v1.0.0 (*)\nrand v0.9.0 (proc-macro)\n";
        let found = duplicates(tree);
        assert_eq!(short(&found), ["1: a package in several versions"]);
        assert!(found[0].fix.starts_with("rand is built as v0.8.5, v0.9.0"));
    }
}
