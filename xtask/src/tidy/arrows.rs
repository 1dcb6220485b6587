//! Rule for dependencies between crates: which crates and libraries a crate may use at compile time. Tests
//! (dev-dependencies) may use anything.

use super::{File, Finding};

/// What the crate of a folder may depend on.
struct Arrow {
    /// Folder of the crate; with `/*` at the end, every folder below it.
    folder: &'static str,
    /// Crates of this workspace that it may use; `None` for every one.
    may_use: Option<&'static [&'static str]>,
    /// Libraries that it must not use; a name that ends with `*` stands for every name with that beginning.
    refused: &'static [&'static str],
}

const MODEL: &str = "tenantry-model";
const ENGINE: &str = "tenantry-engine";
const PROVIDER: &str = "tenantry-provider";
const BUILTIN: &str = "tenantry-builtin";
const DATABASES: &str = "tenantry-databases";
const POSTGRES: &str = "tenantry-postgres";
const SQLITE: &str = "tenantry-sqlite";
const STORE: &str = "tenantry-store";
const CONTROL: &str = "tenantry-control";
const GUARD: &str = "tenantry-guard";

const NO_SQL: &[&str] = &["sqlx*", "sea-orm*", "rusqlite", "tokio-postgres"];

const ARROWS: [Arrow; 17] = [
    Arrow { folder: "crates/model", may_use: Some(&[]), refused: &[] },
    Arrow { folder: "crates/engine", may_use: Some(&[MODEL]), refused: NO_SQL },
    Arrow { folder: "crates/provider", may_use: Some(&[MODEL]), refused: NO_SQL },
    Arrow { folder: "crates/postgres", may_use: Some(&[MODEL]), refused: &["sqlx*", "sea-orm*", "rusqlite"] },
    Arrow {
        folder: "crates/sqlite",
        may_use: Some(&[MODEL, PROVIDER]),
        refused: &["sqlx*", "sea-orm*", "tokio-postgres"],
    },
    Arrow { folder: "crates/providers/builtin", may_use: Some(&[MODEL, PROVIDER]), refused: &[] },
    Arrow {
        folder: "crates/providers/databases",
        may_use: Some(&[MODEL, PROVIDER, POSTGRES, SQLITE]),
        refused: &[],
    },
    // A crate per SDK.
    Arrow { folder: "crates/providers/*", may_use: Some(&[MODEL, PROVIDER]), refused: NO_SQL },
    Arrow {
        folder: "crates/store",
        may_use: Some(&[MODEL, ENGINE, PROVIDER, POSTGRES, SQLITE]),
        refused: &["axum*"],
    },
    Arrow {
        folder: "crates/control",
        may_use: Some(&[MODEL, ENGINE, PROVIDER, STORE]),
        refused: &[
            "axum*",
            "http",
            "hyper*",
            "tower-http",
            "sqlx*",
            "sea-orm*",
            "rusqlite",
            "tokio-postgres",
        ],
    },
    Arrow { folder: "crates/guard", may_use: Some(&[MODEL]), refused: NO_SQL },
    Arrow {
        folder: "crates/server",
        may_use: Some(&[MODEL, ENGINE, PROVIDER, BUILTIN, DATABASES, STORE, CONTROL, GUARD]),
        refused: NO_SQL,
    },
    Arrow { folder: "crates/testkit", may_use: None, refused: &[] },
    Arrow { folder: "crates/bench", may_use: None, refused: &[] },
    Arrow { folder: "crates/chaos", may_use: None, refused: &[] },
    Arrow { folder: "examples/*", may_use: None, refused: &[] },
    Arrow { folder: "xtask", may_use: Some(&[]), refused: &["*"] },
];

/// Checks the manifest of a crate.
pub fn check(file: &File) -> Vec<Finding> {
    let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let Some(arrow) = ARROWS.iter().find(|arrow| arrow.is_for(folder)) else {
        let fix = "add to xtask/src/tidy/arrows.rs what it may depend on";
        return vec![Finding::new(&file.path, 1, "a crate without a place in the architecture", fix)];
    };
    dependencies(&file.text)
        .into_iter()
        .filter_map(|(line, name)| {
            let fix = format!("{folder} must not depend on {name}: move the code to a crate that may");
            arrow.refuses(&name).then(|| Finding::new(&file.path, line, "a forbidden dependency", fix))
        })
        .collect()
}

impl Arrow {
    fn is_for(&self, folder: &str) -> bool {
        match self.folder.strip_suffix('*') {
            Some(parent) => folder.strip_prefix(parent).is_some_and(|name| !name.contains('/')),
            None => folder == self.folder,
        }
    }

    fn refuses(&self, name: &str) -> bool {
        let of_workspace = name.starts_with("tenantry");
        let against_arrow = of_workspace && self.may_use.is_some_and(|allowed| !allowed.contains(&name));
        let refused = self.refused.iter().any(|refused| match refused.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *refused,
        });
        against_arrow || refused
    }
}

/// Lines and names of the dependencies of a manifest, without those of tests.
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
    fn refuses_dependencies_against_the_arrows() {
        for (folder, may, must_not) in [
            ("crates/model", "serde", "tenantry-engine"),
            ("crates/engine", "tenantry-model", "tenantry-provider"),
            ("crates/provider", "tenantry-model", "tenantry-engine"),
            ("crates/provider", "serde", "sqlx"),
            ("crates/postgres", "tenantry-model", "tenantry-engine"),
            ("crates/providers/builtin", "tenantry-provider", "tenantry-databases"),
            ("crates/providers/databases", "sqlx", "tenantry-builtin"),
            ("crates/providers/aws", "tenantry-provider", "tenantry-store"),
            ("crates/store", "tenantry-engine", "tenantry-control"),
            ("crates/store", "tokio-postgres", "axum"),
            ("crates/control", "tenantry-engine", "tenantry"),
            ("crates/control", "tenantry-store", "tenantry-databases"),
            ("crates/control", "tenantry-provider", "tenantry-builtin"),
            ("crates/control", "tenantry-model", "http"),
            ("crates/control", "tokio", "tokio-postgres"),
            ("crates/control", "serde", "sea-orm"),
            ("crates/guard", "tenantry-model", "tenantry-engine"),
            ("crates/server", "tenantry-control", "sqlx"),
            ("crates/server", "tenantry-databases", "rusqlite"),
            ("crates/server", "axum", "tenantry-testkit"),
        ] {
            assert!(allows(folder, may), "{folder} -> {may}");
            assert!(!allows(folder, must_not), "{folder} -> {must_not}");
        }
        assert!(!allows("xtask", "serde"));
        for folder in ["crates/bench", "crates/testkit", "examples/provider"] {
            assert!(allows(folder, "tenantry-control"), "{folder}");
        }
    }

    #[test]
    fn refuses_a_crate_without_an_arrow() {
        let found = short(&check(&File::new("crates/new/Cargo.toml", "")));
        assert_eq!(found, ["1: a crate without a place in the architecture"]);
        assert!(check(&File::new("Cargo.toml", "[workspace.dependencies]\naxum = \"1\"\n")).is_empty());
    }

    #[test]
    fn reads_every_form_of_a_dependency() {
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
