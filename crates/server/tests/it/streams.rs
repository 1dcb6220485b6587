//! Streams: every change arrives, a client that reconnects misses nothing, and a stream ends with its
//! operation or server.

use futures::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Server, request};

/// Reads messages of a stream until `enough`, or its end.
async fn messages(request: RequestBuilder, enough: impl Fn(&[(i64, Value)]) -> bool) -> Vec<(i64, Value)> {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut found = Vec::new();
    let mut text = String::new();
    let mut bytes = response.bytes_stream();
    while !enough(&found) {
        let Some(Ok(chunk)) = bytes.next().await else { break };
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        while let Some((message, rest)) = text.split_once("\n\n") {
            let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                found.push((id.parse().expect("a number"), serde_json::from_str(data).expect("JSON")));
            }
            text = rest.to_owned();
        }
    }
    found
}

fn rising(messages: &[(i64, Value)]) -> bool {
    messages.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

on_both! {
    async fn an_operation_is_followed_until_it_is_done(mut server: Server) {
        let operation = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let id = operation["id"].as_str().unwrap();
        let path = format!("/v1/operations/{id}/events");
        let following = tokio::spawn(messages(server.request(Method::GET, &path), |_| false));
        let first = messages(server.request(Method::GET, &path), |found| !found.is_empty()).await;
        assert_eq!(first[0].0, first[0].1["version"].as_i64().unwrap());
        server.post(&format!("/v1/operations/{id}/approve"), &json!({ "step": "approve" })).await.expect(200);
        let all = following.await.unwrap();
        assert!(rising(&all) && all.len() > 2, "{} messages", all.len());
        let (last, end) = all.last().unwrap();
        assert_eq!((&end["done"], &end["state"]), (&json!(true), &json!("succeeded")));
        assert!(all[..all.len() - 1].iter().all(|(_, view)| view["done"] == false), "it ends with the final state");

        // A client that reconnects gets the versions it has not received; with the last version it gets 204.
        let again = server.request(Method::GET, &path).header("last-event-id", last - 1);
        assert_eq!(messages(again, |_| false).await.len(), 1);
        let over = server.request(Method::GET, &path).header("last-event-id", *last).send().await.unwrap();
        assert_eq!(over.status(), 204);
        let accepted = server.request(Method::GET, &format!("/v1/operations/{id}")).header("accept", "text/event-stream");
        assert_eq!(messages(accepted, |_| false).await.len(), 1);
        let bad = server.request(Method::GET, &path).header("last-event-id", "seven");
        crate::server::read(bad).await.problem(400, "malformed_header");
        server.get("/v1/operations/op_01h2xcejqtf2nbrexx3vqjhp41/events").await.problem(404, "not_found");
    }

    async fn events_resume_after_the_last_received_one(mut server: Server) {
        server.onboard("Acme").await;
        let stream = |last: Option<i64>| {
            let request = server.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
            match last {
                Some(last) => request.header("last-event-id", last),
                None => request,
            }
        };
        let kinds = |found: &[(i64, Value)]| -> Vec<String> {
            found.iter().map(|(_, event)| event["type"].as_str().unwrap().to_owned()).collect()
        };
        let provisioned = |found: &[(i64, Value)]| found.iter().filter(|(_, e)| e["type"] == "tenant.provisioned").count();
        let first = messages(stream(None), |found| provisioned(found) == 1).await;
        assert_eq!(kinds(&first)[0], "tenant.created");
        assert_eq!(first[0].0, 1, "from the beginning, without a gap");
        let last = first.last().unwrap().0;
        let live = tokio::spawn(messages(stream(Some(last)), move |found| provisioned(found) == 1));
        server.onboard("Other").await;
        let live = live.await.unwrap();
        assert_eq!(live[0].0, last + 1);
        let all: Vec<i64> = first.iter().chain(&live).map(|(seq, _)| *seq).collect();
        assert_eq!(all, (1..=all.len() as i64).collect::<Vec<_>>());
        let listed = server.get("/v1/events?limit=100").await.expect(200).body;
        let listed: Vec<i64> = listed["data"].as_array().unwrap().iter().map(|e| e["seq"].as_i64().unwrap()).collect();
        assert!(listed.starts_with(&all), "{listed:?}");
        let rest = server.get(&format!("/v1/events?cursor={last}")).await.expect(200).body;
        assert_eq!(rest["data"][0]["seq"], last + 1);
    }

    async fn a_revoked_key_receives_nothing_more(mut server: Server) {
        let made = server.post("/v1/keys", &json!({ "name": "v", "scopes": ["viewer"] })).await.expect(201).body;
        let key = made["secret"].as_str().unwrap();
        let operation = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let id = operation["id"].as_str().unwrap();
        let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
        let follow = |path: String| {
            let started = started.clone();
            let request = server.bare(Method::GET, &path).bearer_auth(key).header("accept", "text/event-stream");
            tokio::spawn(messages(request, move |found| {
                let _ = (found.len() == 1).then(|| started.send(()));
                false
            }))
        };
        let events = follow("/v1/events".to_owned());
        let changes = follow(format!("/v1/operations/{id}/events"));
        has_started.recv().await.unwrap();
        has_started.recv().await.unwrap();
        server.post(&format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap()), &json!({})).await.expect(200);
        server.post(&format!("/v1/operations/{id}/approve"), &json!({ "step": "approve" })).await.expect(200);
        server.done(id).await;
        server.event("tenant.provisioned").await;
        let (events, changes) = (events.await.unwrap(), changes.await.unwrap());
        assert!(events.iter().all(|(_, event)| event["type"] != "tenant.provisioned"), "{events:#?}");
        assert!(changes.iter().all(|(_, view)| view["done"] == false), "{changes:#?}");
    }

    async fn streams_end_on_shutdown(mut server: Server) {
        let following = tokio::spawn(messages(
            server.request(Method::GET, "/v1/events").header("accept", "text/event-stream"),
            |_| false,
        ));
        let operation = server.post("/v1/tenants", &request("Acme", "gated")).await.expect(202).body;
        let path = format!("/v1/operations/{}/events", operation["id"].as_str().unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let begun = std::sync::Mutex::new(Some(begun));
        let operation = tokio::spawn(messages(server.request(Method::GET, &path), move |found| {
            if let Some(begun) = begun.lock().unwrap().take_if(|_| !found.is_empty()) {
                let _ = begun.send(());
            }
            false
        }));
        has_begun.await.unwrap();
        server.signal(rustix::process::Signal::TERM);
        operation.await.unwrap();
        following.await.unwrap();
        assert!(server.wait().success(), "{}", server.log());
    }
}
