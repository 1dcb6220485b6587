//! Statistics of onboarding, in the API and for Prometheus.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, read, request};

fn named<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|entry| entry[field] == name).unwrap()
}

on_both! {
    async fn statistics_cover_plans_steps_and_failures(mut server: Server) {
        server.onboard("Acme").await;
        server.onboard("Other").await;
        let failing = server.post("/v1/tenants", &request("Never", "failing")).await.expect(202).body;
        server.done(failing["id"].as_str().unwrap()).await;

        let stats = server.get("/v1/stats").await.expect(200).body;
        assert_eq!((&stats["onboardings"], &stats["complete"]), (&json!(3), &json!(true)));
        let starter = named(&stats["plans"], "plan", "starter");
        assert_eq!((&starter["succeeded"], &starter["success_rate"]), (&json!(2), &json!(1.0)));
        assert!(starter["duration"]["p95_ms"].as_f64().unwrap() > 0.0, "{starter}");
        let failing = named(&stats["plans"], "plan", "failing");
        assert_eq!((&failing["rolled_back"], &failing["duration"]), (&json!(1), &Value::Null));
        let steps = &named(&stats["templates"], "template", "failing")["steps"];
        let broken = named(steps, "step", "broken");
        assert_eq!(broken["failures"], 1, "{broken}");
        assert_eq!(broken["causes"][0]["count"], 1);
        let steps = &named(&stats["templates"], "template", "starter")["steps"];
        assert_eq!(named(steps, "step", "smoke_test")["critical"], 2, "{steps:#}");

        let later = server.get("/v1/stats?since=2100-01-01T00:00:00Z").await.expect(200).body;
        assert_eq!((&later["onboardings"], &later["plans"]), (&json!(0), &json!([])));
        server.get("/v1/stats?since=12h").await.expect(200);
        let faults = server.get("/v1/stats?since=yesterday").await.problem(422, "query_invalid");
        assert_eq!(faults, ["since"]);
        let viewer = server.key("viewer", "").await;
        read(server.bare(reqwest::Method::GET, "/v1/stats").bearer_auth(viewer)).await.expect(200);

        let metrics = server.get("/metrics").await.expect(200).text;
        let code = broken["causes"][0]["code"].as_str().unwrap();
        for line in [
            r#"tenantry_onboardings_total{plan="starter",outcome="succeeded"} 2"#,
            r#"tenantry_onboardings_total{plan="failing",outcome="rolled_back"} 1"#,
            r#"tenantry_onboarding_duration_seconds_count{plan="starter"} 2"#,
            r#"tenantry_step_duration_seconds_count{template="starter",step="database"} 2"#,
            &format!(r#"tenantry_step_failures_total{{template="failing",step="broken",code="{code}"}} 1"#),
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        // Metrics start from zero after a restart, as Prometheus expects; statistics come from the ledger.
        server.kill_and_restart().await;
        assert!(!server.get("/metrics").await.text.contains("tenantry_onboardings_total{"));
        assert_eq!(server.get("/v1/stats").await.expect(200).body["plans"], stats["plans"]);
    }
}
