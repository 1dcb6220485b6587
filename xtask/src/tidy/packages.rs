//! Rules for what gets compiled, our dependencies' dependencies among it: one TLS crypto library, one
//! SQLite.

use super::Finding;

/// A second crypto library doubles the build and lets rustls pick neither at run time.
const REFUSED: [&str; 4] = ["ring", "openssl-sys", "openssl", "native-tls"];

/// Linked C code that two versions of one build would fight over.
const AT_MOST_ONCE: &str = "libsqlite3-sys";

/// Checks the output of `cargo tree`, one `name vX.Y.Z …` per line.
pub fn check(tree: &str) -> Vec<Finding> {
    let packages: Vec<(&str, &str)> = tree.lines().filter_map(|line| line.split_once(' ')).collect();
    let refused =
        REFUSED.iter().filter(|name| packages.iter().any(|(package, _)| package == *name)).map(|name| {
            let fix = format!(
                "aws-lc-rs is ours; `cargo tree -i {name}` shows who brings it: turn that feature off"
            );
            Finding::new("Cargo.toml", 1, "a second TLS crypto library", fix)
        });
    let mut versions: Vec<&str> = packages
        .iter()
        .filter(|(package, _)| *package == AT_MOST_ONCE)
        .filter_map(|(_, rest)| rest.split(' ').next())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let twice = (versions.len() > 1).then(|| {
        let fix = format!("use one version of {AT_MOST_ONCE}: there are {}", versions.join(", "));
        Finding::new("Cargo.toml", 1, "SQLite twice", fix)
    });
    refused.chain(twice).collect()
}

#[cfg(test)]
mod tests {
    use super::super::short;
    use super::check;

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
}
