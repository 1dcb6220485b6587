//! Which crate may depend on which, at compile time, and which libraries a crate must do without. Tests
//! (dev-dependencies) may use anything.

use super::{File, Finding};

/// What one crate may depend on.
struct Arrow {
    /// Folder of the crate.
    folder: &'static str,
    /// Those of our own crates that it may use; `None` for all.
    ours: Option<&'static [&'static str]>,
    /// Libraries that it must do without; a name that ends with `*` stands for all that begin so.
    refused: &'static [&'static str],
}

const MODEL: &str = "tenantry-model";
const ENGINE: &str = "tenantry-engine";
const PROVIDER: &str = "tenantry-provider";
const BUILTIN: &str = "tenantry-builtin";
const DATABASES: &str = "tenantry-databases";
const STORE: &str = "tenantry-store";
const CONTROL: &str = "tenantry-control";
const GUARD: &str = "tenantry-guard";

const ARROWS: [Arrow; 12] = [
    Arrow { folder: "crates/model", ours: Some(&[]), refused: &[] },
    Arrow { folder: "crates/engine", ours: Some(&[MODEL]), refused: &[] },
    Arrow {
        folder: "crates/provider",
        ours: Some(&[MODEL]),
        refused: &["sqlx*", "rusqlite", "tokio-postgres"],
    },
    Arrow { folder: "crates/providers/databases", ours: Some(&[MODEL, PROVIDER]), refused: &[] },
    Arrow { folder: "crates/providers/builtin", ours: Some(&[MODEL, PROVIDER, DATABASES]), refused: &[] },
    Arrow { folder: "crates/store", ours: Some(&[MODEL, ENGINE, PROVIDER]), refused: &["axum*"] },
    Arrow {
        folder: "crates/control",
        ours: Some(&[MODEL, ENGINE, PROVIDER, BUILTIN, STORE]),
        refused: &["axum*", "http", "hyper*", "tower-http", "sqlx*", "rusqlite", "tokio-postgres"],
    },
    Arrow { folder: "crates/guard", ours: Some(&[]), refused: &[] },
    Arrow {
        folder: "crates/server",
        ours: Some(&[MODEL, ENGINE, PROVIDER, BUILTIN, DATABASES, STORE, CONTROL, GUARD]),
        refused: &["sqlx*", "rusqlite", "tokio-postgres"],
    },
    Arrow { folder: "crates/testkit", ours: None, refused: &[] },
    Arrow { folder: "crates/bench", ours: None, refused: &[] },
    Arrow { folder: "xtask", ours: Some(&[]), refused: &["*"] },
];

/// Checks the manifest of a crate.
pub fn check(file: &File) -> Vec<Finding> {
    let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let Some(arrow) = ARROWS.iter().find(|arrow| arrow.folder == folder) else {
        let fix = "say in xtask/src/tidy/arrows.rs what it may depend on";
        return vec![Finding::new(&file.path, 1, "a crate without a place in the architecture", fix)];
    };
    dependencies(&file.text)
        .into_iter()
        .filter_map(|(line, name)| {
            let ours = name.starts_with("tenantry");
            let wrong_way = ours && arrow.ours.is_some_and(|allowed| !allowed.contains(&name.as_str()));
            let refused = arrow.refused.iter().any(|refused| match refused.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == *refused,
            });
            let fix = format!("{folder} must not depend on {name}: move the code to the crate that may");
            (wrong_way || refused).then(|| Finding::new(&file.path, line, "a forbidden dependency", fix))
        })
        .collect()
}

/// Names and lines of what a manifest depends on, tests apart.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut listing = false;
    for (line, text) in (1..).zip(manifest.lines().map(str::trim)) {
        if let Some(section) = text.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            // [dependencies], [build-dependencies], [target.'cfg(unix)'.dependencies], [dependencies.name]
            let (_, last) = section.rsplit_once('.').unwrap_or(("", section));
            listing = is_listing(last);
            if let Some((table, name)) = section.rsplit_once('.')
                && is_listing(table.rsplit('.').next().unwrap_or(table))
            {
                found.push((line, name.trim_matches('"').to_owned()));
            }
        } else if listing && !text.starts_with('#') {
            let Some((key, value)) = text.split_once('=') else { continue };
            let key = key.split('.').next().unwrap_or(key).trim().trim_matches('"');
            let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            found.push((line, renamed.unwrap_or(key).to_owned()));
        }
    }
    found
}

fn is_listing(table: &str) -> bool {
    matches!(table, "dependencies" | "build-dependencies")
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::{check, dependencies};

    fn allows(folder: &str, dependency: &str) -> bool {
        let manifest = format!("[package]\nname = \"x\"\n\n[dependencies]\n{dependency}.workspace = true\n");
        let found = short(&check(&File::new(&format!("{folder}/Cargo.toml"), &manifest)));
        assert!(found.is_empty() || found == ["5: a forbidden dependency"], "{found:?}");
        found.is_empty()
    }

    #[test]
    fn arrows_point_one_way() {
        for (folder, may, must_not) in [
            ("crates/model", "serde", "tenantry-engine"),
            ("crates/engine", "tenantry-model", "tenantry-provider"),
            ("crates/provider", "tenantry-model", "tenantry-engine"),
            ("crates/providers/databases", "sqlx", "tenantry-control"),
            ("crates/control", "tenantry-engine", "tenantry"),
            ("crates/store", "tokio-postgres", "axum"),
            ("crates/control", "tenantry-store", "tokio-postgres"),
            ("crates/control", "tenantry-provider", "axum-extra"),
            ("crates/control", "tenantry-model", "http"),
            ("crates/guard", "tower", "tenantry-model"),
            ("crates/server", "tenantry-control", "sqlx"),
            ("crates/server", "tenantry-guard", "tokio-postgres"),
            ("crates/server", "axum", "tenantry-testkit"),
        ] {
            assert!(allows(folder, may), "{folder} -> {may}");
            assert!(!allows(folder, must_not), "{folder} -> {must_not}");
        }
        assert!(!allows("xtask", "serde"));
        assert!(allows("crates/bench", "tenantry-control"));
    }

    #[test]
    fn every_crate_has_a_place() {
        let found = short(&check(&File::new("crates/new/Cargo.toml", "")));
        assert_eq!(found, ["1: a crate without a place in the architecture"]);
        assert!(check(&File::new("Cargo.toml", "[workspace.dependencies]\naxum = \"1\"\n")).is_empty());
    }

    #[test]
    fn reads_every_way_to_write_a_dependency() {
        let manifest = "\
[dependencies]
a = \"1\"
b.workspace = true
# c = \"1\"
d = { package = \"real-d\", version = \"1\", features = [
    \"x\",
] }
[dependencies.e]
version = \"1\"
[target.'cfg(unix)'.dependencies]
f = \"1\"
[build-dependencies]
g = \"1\"
[dev-dependencies]
h = \"1\"
[features]
i = []
";
        let names: Vec<_> =
            dependencies(manifest).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
        assert_eq!(names, ["2 a", "3 b", "5 real-d", "8 e", "11 f", "13 g"]);
    }
}
