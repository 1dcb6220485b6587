//! Tests of whole sets. The files are written by hand in the style of the tools that their tests name.

mod faults;
mod formats;
mod properties;

use super::*;

/// A folder with the set `app`.
struct Set {
    _dir: tempfile::TempDir,
    files: Files,
}

impl Set {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("app");
        std::fs::create_dir(&set).unwrap();
        for (name, bytes) in files {
            let path = set.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let files = Files::Folder(dir.path().to_owned());
        Self { _dir: dir, files }
    }

    fn of(files: &[(&str, &str)]) -> Self {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        Self::new(&files)
    }

    fn load(&self, dialect: Dialect, public: PublicSchema) -> Result<Vec<Migration>, Failure> {
        let extensions = Allowed::new(&DEFAULT_EXTENSIONS.map(str::to_owned)).unwrap();
        load(&self.files, "app", dialect, &Policy { public, extensions })
    }
}

fn postgres(files: &[(&str, &str)]) -> Result<Vec<Migration>, String> {
    Set::of(files).load(Dialect::Postgres, PublicSchema::Reject).map_err(|failure| failure.message)
}

fn rewritten(files: &[(&str, &str)]) -> Result<Vec<Migration>, String> {
    Set::of(files).load(Dialect::Postgres, PublicSchema::Rewrite).map_err(|failure| failure.message)
}

fn sqlite(files: &[(&str, &str)]) -> Result<Vec<Migration>, String> {
    Set::of(files).load(Dialect::Sqlite, PublicSchema::Reject).map_err(|failure| failure.message)
}

/// The statements that run, each as `LINE TEXT`, in the schema `s`.
fn statements(migration: &Migration) -> Vec<String> {
    let members = [("citext", "x"), ("similarity", "x"), ("<->", "x"), ("gin_trgm_ops", "x")];
    let members = members.map(|(name, schema)| (name.to_owned(), schema.to_owned())).into();
    let one = |statement: &Statement| format!("{} {}", statement.line, statement.sql("s", &members));
    migration.statements.iter().map(one).collect()
}

fn versions(names: &[&str]) -> Result<Vec<String>, String> {
    let files: Vec<_> = names.iter().map(|name| (*name, "SELECT 1;")).collect();
    sqlite(&files).map(|all| all.into_iter().map(|m| m.version).collect())
}

#[test]
fn file_names_of_four_tools_are_ordered() {
    assert_eq!(versions(&["0002_b.sql", "0001_a.sql", "README.md"]).unwrap(), ["0001", "0002"]);
    assert_eq!(
        versions(&["1_a.up.sql", "1_a.down.sql", "10_c.up.sql", "2_b.up.sql"]).unwrap(),
        ["1", "2", "10"]
    );
    assert_eq!(versions(&["20260101120000_a.sql"]).unwrap(), ["20260101120000"]);
    assert_eq!(
        versions(&["V1.10__c.sql", "V1_9__b.sql", "V1__a.sql", "U1__a.sql"]).unwrap(),
        ["1", "1.9", "1.10"]
    );
}

#[test]
fn keys_are_those_of_earlier_versions() {
    let set = [("0001_a.sql", "SELECT 1;"), ("V1.9__b.sql", "SELECT 1;"), ("20260101_c.sql", "SELECT 1;")];
    let keys: Vec<String> = postgres(&set).unwrap().iter().map(Migration::key).collect();
    assert_eq!(keys, ["1", "1.9", "20260101"]);
}

#[test]
fn checksum_is_of_the_whole_text_without_line_ends() {
    let sum = |text: &str| postgres(&[("1_a.sql", text)]).unwrap()[0].checksum.clone();
    let unix = "-- +goose Up\nSELECT 1;\n-- +goose Down\nSELECT 2;\n";
    // The value that earlier versions stored for this file.
    assert_eq!(sum(unix), hex::encode(Sha256::digest(unix)));
    assert_eq!(sum(unix), sum(&format!("\u{feff}{}", unix.replace('\n', "\r\n"))));
    assert_ne!(sum(unix), sum(&unix.replace('2', "3")));
}

#[test]
fn applied_files_must_not_change() {
    let all = postgres(&[("1_a.sql", "SELECT 1;"), ("2_b.sql", "SELECT 2;")]).unwrap();
    let applied = |of: &[&Migration]| -> Vec<Applied> {
        let one = |m: &&Migration| Applied {
            key: m.key(),
            version: m.version.clone(),
            file: m.file.clone(),
            checksum: m.checksum.clone(),
        };
        of.iter().map(one).collect()
    };
    assert_eq!(pending(&all, &[]).unwrap(), all);
    assert_eq!(pending(&all, &applied(&[&all[0]])).unwrap(), &all[1..]);
    assert!(pending(&all, &applied(&[&all[0], &all[1]])).unwrap().is_empty());
    let changed = Migration { checksum: "x".to_owned(), ..all[0].clone() };
    for (folder, there, why) in [
        (&all[..], applied(&[&changed]), "1_a.sql was changed"),
        (&all[1..], applied(&[&all[0]]), "1_a.sql is applied but missing"),
        (&all[..], applied(&[&all[1]]), "1_a.sql comes before 2_b.sql"),
        (&all[..1], applied(&[&all[0], &all[1]]), "belongs to a newer release"),
    ] {
        let failure = pending(folder, &there).unwrap_err();
        assert_eq!(failure.code, "migration_changed");
        assert!(failure.message.contains(why), "{failure}");
    }
    let sum = &all[0].checksum;
    let corrected =
        postgres(&[("1_a.sql", &format!("-- replaces: {sum}\nSELECT 3;")), ("2_b.sql", "SELECT 2;")])
            .unwrap();
    assert_eq!(
        pending(&corrected, &applied(&[&all[0]])).unwrap(),
        &corrected[1..],
        "the earlier text counts"
    );
    assert_eq!(pending(&corrected, &applied(&[&corrected[0]])).unwrap(), &corrected[1..]);
    assert_eq!(pending(&corrected, &applied(&[&changed])).unwrap_err().code, "migration_changed");
}
