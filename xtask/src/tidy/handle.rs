//! Rule for calls of providers: the control plane holds each provider as a `ResourceHandle`, so that region, concurrency,
//! timeout and metrics apply to each call. Nothing else there names a provider's type or the registry of providers.
//! A file `provider.rs` implements the trait: a provider of the control plane's own, called through its handle as well.

use super::rust::{has_word, is_test, split};
use super::{File, Finding};

/// The crate that is checked.
const ROOT: &str = "crates/control/src/";
/// Name of a file that implements the trait.
const PROVIDER: &str = "/provider.rs";

/// Folders that know providers without handles: `resource` makes the handles from the registry that `process` is given, and
/// `templates` reads the providers' schemas, before there are handles.
const EXEMPT: [&str; 3] = ["resource/", "process/", "templates/"];

/// Types through which a provider without its handle could be had.
const TYPES: [&str; 2] = ["Provider", "Registry"];

/// Checks one file: one finding a line.
pub fn check(file: &File) -> Vec<Finding> {
    let Some(path) = file.path.strip_prefix(ROOT).filter(|path| path.ends_with(".rs")) else {
        return Vec::new();
    };
    let exempt = path.ends_with(PROVIDER) || EXEMPT.iter().any(|folder| path.starts_with(folder));
    if exempt || is_test(&file.path) {
        return Vec::new();
    }
    // Without a name, the trait only gives a handle its verbs.
    let code = split(&file.text).product_code().replace("Provider as _", "");
    let lines = (1..).zip(code.lines());
    lines
        .filter_map(|(line, text)| {
            let name = TYPES.iter().find(|name| has_word(text, name))?;
            let fix =
                format!("`{name}`: take a `ResourceHandle` from `Resources` (crates/control/src/resource)");
            Some(Finding::new(&file.path, line, "a provider without its handle", fix))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::check;

    fn found(path: &str, text: &str) -> Vec<String> {
        let path = format!("crates/control/src/{path}");
        short(&check(&File::new(&path, &format!("//! Owns.\n{text}\n"))))
    }

    #[test]
    fn refuses_providers_outside_the_handle() {
        for code in [
            "use tenantry_provider::{Kind, Provider};",
            "use tenantry_provider::Provider as Other;",
            "fn f(provider: &dyn Provider) {}",
            "struct A(tenantry_provider::Registry);",
        ] {
            for path in ["tenants/fences.rs", "operations/onboard/mod.rs"] {
                assert_eq!(found(path, code), ["2: a provider without its handle"], "{path} {code}");
            }
            for path in ["resource/handle.rs", "process/mod.rs", "templates/load.rs", "members/provider.rs"] {
                assert!(found(path, code).is_empty(), "{path} {code}");
            }
            assert!(found("tenants/fences.rs", &format!("#[cfg(test)]\nmod tests {{ {code} }}")).is_empty());
        }
    }

    #[test]
    fn accepts_the_verbs_of_handles_and_other_names() {
        for code in [
            "use tenantry_provider::{Kind, Provider as _};",
            "fn f(provider: &ResourceHandle) { provider.fence(); }",
            "use tenantry_provider::ProviderName;",
            "// a Provider",
        ] {
            assert!(found("tenants/fences.rs", code).is_empty(), "{code}");
        }
    }
}
