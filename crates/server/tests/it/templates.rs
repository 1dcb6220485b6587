//! Versions of templates and their differences.

use serde_json::json;

use crate::server::Server;

/// The changes from version 1 to version 2 of the template.
const CHANGES: &str = "\
~ quotas.seats: 5 → 10
+ steps.config: {\"kind\":\"config\",\"needs\":[\"identity\"]}
~ steps.database.timeout: 30s → 2m
- steps.smoke_test.needs: identity
+ steps.smoke_test.needs: config
";

fn said(output: &std::process::Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn versions_are_compared() {
    let server = Server::sqlite().await;
    let diff = server.get("/v1/templates/versions/diff").await.expect(200).body;
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)), "the two newest");
    assert_eq!(
        diff["changes"][0],
        json!({ "path": "quotas.seats", "change": "changed", "old": 5, "new": 10 })
    );
    let same = server.get("/v1/templates/versions/diff?from=1&to=1").await.expect(200).body;
    assert_eq!(same["changes"], json!([]));
    let back = server.get("/v1/templates/versions/diff?from=2&to=1").await.expect(200).body;
    assert_eq!(back["changes"].as_array().unwrap().len(), diff["changes"].as_array().unwrap().len());
    for path in
        ["nothing/diff", "versions/diff?from=9", "versions/diff?to=9", "versions/diff?to=1", "gated/diff"]
    {
        server.get(&format!("/v1/templates/{path}")).await.problem(404, "not_found");
    }
    let faults = server.get("/v1/templates/versions/diff?from=0&to=one").await.problem(422, "query_invalid");
    assert_eq!(faults, ["from", "to"]);
}

#[tokio::test]
async fn changes_are_printed_as_lines() {
    let server = Server::sqlite().await;
    // Validating a file creates folders relative to the working directory.
    let run =
        |arguments: &[&str]| said(&server.cli(arguments).current_dir(server.folder()).output().unwrap());
    let (code, shown, about) = run(&["template", "diff", "versions"]);
    assert_eq!((code, shown.as_str()), (Some(0), CHANGES), "{about}");
    assert!(about.contains("version 1 → 2"), "{about}");
    let (_, same, about) = run(&["template", "diff", "versions", "--from", "2", "--to", "2"]);
    assert!(same.is_empty() && about.contains("no changes"), "{same}{about}");
    let (_, whole, _) = run(&["template", "diff", "versions", "--output", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&whole).unwrap()["to"], 2);
    assert_eq!(run(&["template", "diff", "gated"]).0, Some(3), "there is one version only");

    let files = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/files/templates");
    let older = files.join("versions_1.yaml").display().to_string();
    let (code, shown, about) = run(&["template", "diff", "versions", "--file", &older]);
    assert_eq!(code, Some(0), "{about}");
    assert!(
        shown.contains("- steps.config") && shown.contains("~ steps.database.timeout: 2m → 30s"),
        "{shown}"
    );
    assert_eq!(run(&["template", "diff", "gated", "--file", &older]).0, Some(2), "another template's file");
    let broken = server.folder().join("broken.yaml");
    std::fs::write(&broken, "template: versions\nversion: one\n").unwrap();
    let (code, _, about) = run(&["template", "diff", "versions", "--file", broken.to_str().unwrap()]);
    assert!(code == Some(1) && about.contains("version"), "{about}");
}
