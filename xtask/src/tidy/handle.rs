//! Rule for calls of providers: in the control plane only `resource/` uses the provider's trait, so that
//! region, concurrency, timeout and metrics apply to each call.

use super::rust::{has_word, is_test, split};
use super::{File, Finding};

/// The crate that is checked, and its folder that holds the handle.
const ROOT: &str = "crates/control/src/";
const HANDLE: &str = "crates/control/src/resource/";

/// The provider's trait, and how a capability is taken from it.
const CALLS: [&str; 7] =
    ["Provider", ".fence()", ".transfer()", ".rotate()", ".isolation()", ".objects()", ".data()"];

/// Checks one file: one finding a line.
pub fn check(file: &File) -> Vec<Finding> {
    let checked = file.path.starts_with(ROOT) && !file.path.starts_with(HANDLE) && file.path.ends_with(".rs");
    if !checked || is_test(&file.path) {
        return Vec::new();
    }
    let code = split(&file.text).product_code();
    let lines = (1..).zip(code.lines());
    lines
        .filter_map(|(line, text)| {
            let call = CALLS.iter().find(|call| has_word(text, call))?;
            let fix =
                format!("`{call}`: call the provider through the handle in crates/control/src/resource");
            Some(Finding::new(&file.path, line, "a provider without its handle", fix))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::check;

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&File::new(path, &format!("//! Owns.\n{text}\n"))))
    }

    #[test]
    fn refuses_providers_outside_the_handle() {
        for code in [
            "use tenantry_provider::{Kind, Provider};",
            "fn f(provider: &dyn Provider) {}",
            "let fence = provider.fence();",
            "let a = it.transfer().is_some();",
        ] {
            for path in ["crates/control/src/fences.rs", "crates/control/src/operations/onboard/mod.rs"] {
                assert_eq!(found(path, code), ["2: a provider without its handle"], "{path} {code}");
            }
            assert!(found("crates/control/src/resource/handle.rs", code).is_empty(), "{code}");
            assert!(found("crates/server/src/wiring.rs", code).is_empty(), "{code}");
            assert!(
                found("crates/control/src/fences.rs", &format!("#[cfg(test)]\nmod tests {{ {code} }}"))
                    .is_empty()
            );
        }
    }

    #[test]
    fn accepts_other_names() {
        for code in
            ["use tenantry_provider::ProviderName;", "row.fence(now);", "// a Provider", "self.data.len()"]
        {
            assert!(found("crates/control/src/fences.rs", code).is_empty(), "{code}");
        }
    }
}
