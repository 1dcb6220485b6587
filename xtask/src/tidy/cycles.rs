//! Rules for the modules of the control plane: few at the root, no import cycle between them, and no import
//! against the order operations → resource → store. A module of the root with its folder is one node; tests
//! do not count. A call of a use case counts as an import of the module that has it: every use case is a method
//! of `Control`, which is below them all, so no `use` shows that one calls another.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::{is_test, split};
use super::{File, Finding};

/// The crate whose modules are checked.
const ROOT: &str = "crates/control/src/";

/// Modules that the crate may have at its root.
const MAX_MODULES: usize = 15;

/// A module of this list may import those before it, not those after it.
const LAYERS: [&str; 3] = ["store", "resource", "operations"];

/// The block of a file that has its use cases.
const USE_CASES: &str = "impl Control {";

/// Imports between modules of the root, each with the place of its first use.
type Imports = BTreeMap<(String, String), (String, usize)>;

/// One finding for each module beyond the limit.
pub fn modules(files: &[File]) -> Vec<Finding> {
    let names: Vec<String> = module_names(files).into_iter().collect();
    let fix =
        format!("the root has {} and may have {MAX_MODULES}: move it into the folder it serves", names.len());
    let surplus = names.iter().skip(MAX_MODULES);
    let path = ROOT.trim_end_matches('/');
    surplus
        .map(|name| Finding::new(&format!("{path}/{name}"), 1, "too many modules at the root", &*fix))
        .collect()
}

/// One finding for each import that stands in a cycle.
pub fn cycles(files: &[File]) -> Vec<Finding> {
    let imports = imports(files);
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        targets.entry(from).or_default().push(to);
    }
    let in_cycle = imports.iter().filter(|((from, to), _)| reaches(&targets, to, from));
    in_cycle
        .map(|((from, to), (path, line))| {
            let fix = format!(
                "{from} imports {to}, which imports {from} directly or through others: cut one import"
            );
            Finding::new(path, *line, "an import cycle", fix)
        })
        .collect()
}

/// One finding for each import against the order of the layers.
pub fn layers(files: &[File]) -> Vec<Finding> {
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let imports = imports(files);
    let against = imports
        .iter()
        .filter(|((from, to), _)| layer(from).zip(layer(to)).is_some_and(|(from, to)| from < to));
    against
        .map(|((from, to), (path, line))| {
            let fix = format!("{from} must not import {to}: pass it in, or move the code up");
            Finding::new(path, *line, "an import against the layers", fix)
        })
        .collect()
}

/// True when following imports from `from` leads to `to`.
fn reaches(targets: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(targets.get(module).into_iter().flatten().copied());
        }
    }
    false
}

/// The file's path below the root of the crate; `None` for other crates and for tests.
fn inside(file: &File) -> Option<&str> {
    let path = file.path.strip_prefix(ROOT)?.strip_suffix(".rs")?;
    (path != "lib" && !is_test(&file.path)).then_some(path)
}

fn module_names(files: &[File]) -> BTreeSet<String> {
    files.iter().filter_map(inside).filter_map(|path| path.split('/').next()).map(str::to_owned).collect()
}

fn imports(files: &[File]) -> Imports {
    let modules = module_names(files);
    let mut targets = exports(files, &modules);
    targets.extend(modules.iter().map(|module| (module.clone(), module.clone())));
    let inside: Vec<(&File, Vec<&str>, String)> = files
        .iter()
        .filter_map(|file| Some((file, inside(file)?.split('/').collect(), split(&file.text).product_code())))
        .collect();
    let mut use_cases = BTreeMap::new();
    for (_, parts, code) in &inside {
        let methods = blocks(code).flat_map(|(_, block)| after(block, "fn "));
        use_cases.extend(methods.map(|(_, name)| (name.to_owned(), parts[0].to_owned())));
    }
    let mut imports = Imports::new();
    for (file, parts, code) in &inside {
        let depth = parts.len() - usize::from(parts.len() > 1 && parts.last() == Some(&"mod"));
        let own = blocks(code)
            .flat_map(|(start, block)| after(block, "self.").map(move |(at, name)| (start + at, name)));
        let called = own.chain(after(code, "control.")).map(|(at, name)| (at, use_cases.get(name)));
        let named = root_names(code, depth).into_iter().map(|(at, name)| (at, targets.get(name)));
        for (at, target) in named.chain(called) {
            let Some(target) = target.filter(|target| *target != parts[0]) else { continue };
            let line = 1 + code[..at].matches('\n').count();
            imports.entry((parts[0].to_owned(), target.clone())).or_insert((file.path.clone(), line));
        }
    }
    imports
}

/// The blocks of use cases, each with its place.
fn blocks(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices(USE_CASES).map(|(at, _)| {
        let block = &code[at..];
        (at, &block[..block.find("\n}").unwrap_or(block.len())])
    })
}

/// The names behind each `prefix` that has an opening bracket or parenthesis behind them.
fn after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        let name = words(rest).next().filter(|name| rest.starts_with(*name))?;
        rest[name.len()..].starts_with(['(', '<']).then_some((at, name))
    })
}

/// Names that `lib.rs` exports, with the module each comes from.
fn exports(files: &[File], modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut exported = BTreeMap::new();
    let Some(lib) = files.iter().find(|file| file.path == format!("{ROOT}lib.rs")) else { return exported };
    for statement in split(&lib.text).code.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let mut names = words(path);
        let Some(module) = names.next().filter(|name| modules.contains(*name)) else { continue };
        exported.extend(names.map(|name| (name.to_owned(), module.to_owned())));
    }
    exported
}

/// The first name behind each path to the crate's root: `crate::`, or `super::` as often as the file is deep.
/// Of a group in braces, the first name of each member.
fn root_names(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", &up] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            let rest = &code[at + prefix.len()..];
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let names = match rest.strip_prefix('{') {
                Some(group) => first_names(group),
                None => words(rest).next().filter(|name| rest.starts_with(*name)).into_iter().collect(),
            };
            found.extend(names.into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// The first name of each member of a group, up to its closing brace.
fn first_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut begins = true;
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && (c.is_alphabetic() || c == '_') => {
                names.extend(words(&group[at..]).next());
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::{cycles, layers, modules};

    fn files(texts: &[(&str, &str)]) -> Vec<File> {
        texts.iter().map(|(path, text)| File::new(&format!("crates/control/src/{path}"), text)).collect()
    }

    #[test]
    fn refuses_cycles_between_modules_of_the_root() {
        let found = cycles(&files(&[
            ("a.rs", "use crate::{b::{self, X}, d};\n"),
            ("b/mod.rs", "mod inner;\n"),
            ("b/inner.rs", "//! Text.\nfn f() { super::super::c::g(); super::h(); crate::b::h(); }\n"),
            ("c.rs", "use super::a::Y;\nuse crate::d;\n"),
            ("d.rs", "// use crate::a;\nuse other::crate_a;\n"),
            ("../../server/src/a.rs", "use crate::b;"),
        ]));
        assert_eq!(short(&found), ["1: an import cycle", "2: an import cycle", "1: an import cycle"]);
    }

    #[test]
    fn follows_what_the_root_exports() {
        let lib = ("lib.rs", "mod a;\npub mod b;\npub use a::{One, two::Three as Four};\n");
        let found =
            cycles(&files(&[lib, ("a.rs", "use crate::b::X;"), ("b.rs", "\nuse crate::{Four, Error};")]));
        assert_eq!(short(&found), ["1: an import cycle", "2: an import cycle"]);
    }

    #[test]
    fn a_call_of_a_use_case_is_an_import() {
        let a = "impl Control {\n    pub fn one(&self) {\n        self.two();\n    }\n}\n";
        let b = "impl Control {\n    fn two<T>(&self) {}\n}\nimpl Task for B {\n    fn f(control: &Control) { control.one() }\n}\n";
        assert_eq!(
            short(&cycles(&files(&[("a.rs", a), ("b/mod.rs", b)]))),
            ["3: an import cycle", "5: an import cycle"]
        );
        let other = "impl B {\n    fn two(&self) { self.one(); }\n}\n";
        assert!(cycles(&files(&[("a.rs", a), ("b/mod.rs", other)])).is_empty());
    }

    #[test]
    fn leaves_tests_out() {
        let found = cycles(&files(&[
            ("a.rs", "use crate::b;\n"),
            ("b/mod.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
            ("b/tests.rs", "use crate::a;\n"),
        ]));
        assert!(found.is_empty());
    }

    #[test]
    fn refuses_imports_against_the_layers() {
        let found = layers(&files(&[
            ("operations/mod.rs", "use crate::{resource, store};\n"),
            ("resource/mod.rs", "use crate::store::A;\n\nuse crate::operations::B;\n"),
            ("store/mod.rs", "use crate::operations::C;\nuse crate::resource::D;\nuse crate::events;\n"),
            ("events.rs", "use crate::operations;\n"),
        ]));
        let rule = "an import against the layers";
        assert_eq!(short(&found), [format!("3: {rule}"), format!("1: {rule}"), format!("2: {rule}")]);
    }

    #[test]
    fn counts_the_modules_of_the_root() {
        let names: Vec<String> = (10..27).map(|number| format!("m{number}.rs")).collect();
        let mut texts: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        texts.extend([("lib.rs", ""), ("m10/inner.rs", ""), ("m11/mod.rs", "")]);
        assert_eq!(modules(&files(&texts)).len(), 2);
        assert!(modules(&files(&texts[2..17])).is_empty());
    }
}
