//! Lifetimes of sessions by the clock, sessions of several members of a tenant, and what an erasure leaves of them.

use std::time::Duration;

use serde_json::json;
use tenantry_control::members::sessions::{SessionEnd, SessionView};
use tenantry_control::{Caller, Control, PageQuery, TenantSession, TokenView};
use tenantry_engine::Clock;
use tenantry_model::{Timestamp, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::{Store, StoreConfig, WriteBatch};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::world::{World, in_both_worlds, request};

const DAY: Duration = Duration::from_secs(86_400);

in_both_worlds! {
    a_session_ends_after_a_time_without_use_and_at_its_greatest_age
    a_replaced_token_is_answered_for_some_seconds_only
    members_see_their_own_sessions_and_administrators_all
    the_oldest_of_too_many_sessions_is_deleted
    an_erasure_deletes_sessions
}

/// Onboards a tenant and accepts its invitation.
async fn signed_in(world: &World, control: &Control) -> TokenView {
    let caller = Caller::system();
    let created = control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    people(world, control, false).await.unwrap();
    let secrets = control.claim_credentials(&caller, created.operation.id).await.unwrap();
    control.accept_invitation(&secrets[0].value, None).await.unwrap()
}

async fn refresh(control: &Control, tokens: &TokenView) -> Result<TokenView, String> {
    let refreshed = control.refresh(tokens.refresh_token.as_deref().unwrap()).await;
    refreshed.map_err(|error| error.code.to_string())
}

async fn listed(control: &Control) -> Vec<SessionView> {
    control.sessions(&Caller::system(), "acme", &PageQuery::default()).await.unwrap().data
}

async fn pass(world: &World, time: Duration) {
    world.clock.sleep_until(world.clock.now() + time).await;
}

async fn open(world: &World) -> Store {
    Store::open(&StoreConfig { url: world.registry_url(), readers: 1 }).await.unwrap()
}

/// Signs in by a one-time code that an application has created.
async fn by_code(control: &Control, store: &Store, of: &TenantSession, member: &str) -> TokenView {
    let (code, expires) = (format!("code of {member} {}", Timestamp::now()), Timestamp::now() + 3_650 * DAY);
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&code));
    let row = columns! {
        "hash": hash, "tenant_id": of.tenant, "member_id": member, "purpose": "login", "expires_at": expires,
        "used_at": (),
    };
    store.commit(WriteBatch::new(vec![Write::insert("sign_in_codes", row)])).await.unwrap();
    control.sign_in(&code, Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")).await.unwrap()
}

async fn a_session_ends_after_a_time_without_use_and_at_its_greatest_age(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let mut tokens = signed_in(&world, control).await;
    // Used every six days, it lasts for thirty.
    for _ in 0..4 {
        pass(&world, 6 * DAY).await;
        tokens = refresh(control, &tokens).await.unwrap();
        control.authenticate_member(&tokens.access_token).await.unwrap();
    }
    assert_eq!(listed(control).await[0].end_reason, None);
    pass(&world, 6 * DAY).await;
    assert_eq!(refresh(control, &tokens).await.err().unwrap(), "refresh_refused");
    assert_eq!(listed(control).await[0].end_reason, Some(SessionEnd::Expired));

    let store = open(&world).await;
    let of = TenantSession { tenant: listed(control).await[0].tenant_id, ..session_of(control, &tokens) };
    let tokens = by_code(control, &store, &of, &of.member).await;
    pass(&world, 7 * DAY).await;
    assert_eq!(refresh(control, &tokens).await.err().unwrap(), "refresh_refused");
    assert_eq!(listed(control).await[0].end_reason, Some(SessionEnd::Idle));
    // Ended sessions are listed until thirty days after their greatest age.
    assert_eq!(control.sweep().await.unwrap().sessions, 0);
    pass(&world, 24 * DAY).await;
    assert_eq!((control.sweep().await.unwrap().sessions, listed(control).await.len()), (1, 1));
    store.close().await;
    process.control.stop().await;
}

/// The bearer by the claims of a token that may have expired.
fn session_of(control: &Control, tokens: &TokenView) -> TenantSession {
    let payload = tokens.access_token.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["iss"], control.public_url());
    let text = |name: &str| claims[name].as_str().unwrap().to_owned();
    let tenant = text("tenant_id").parse().unwrap();
    TenantSession {
        tenant,
        member: text("sub"),
        role: text("role"),
        session: Some(text("sid")),
        purpose: None,
    }
}

async fn a_replaced_token_is_answered_for_some_seconds_only(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let first = signed_in(&world, control).await;
    let second = refresh(control, &first).await.unwrap();
    pass(&world, Duration::from_secs(9)).await;
    assert_eq!(refresh(control, &first).await.unwrap().refresh_token, second.refresh_token);
    pass(&world, Duration::from_secs(1)).await;
    assert_eq!(refresh(control, &first).await.err().unwrap(), "refresh_refused");
    assert_eq!(listed(control).await[0].end_reason, Some(SessionEnd::TokenReused));
    assert_eq!(refresh(control, &second).await.err().unwrap(), "refresh_refused");
    process.control.stop().await;
}

async fn members_see_their_own_sessions_and_administrators_all(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, page) = (&process.control, PageQuery::default());
    let owner = signed_in(&world, control).await;
    let owner = control.authenticate_member(&owner.access_token).await.unwrap();
    let store = open(&world).await;
    let mut row = store.find("members", &[("tenant_id", json!(owner.tenant))]).await.unwrap().remove(0);
    let id = tenantry_model::id::UserId::new().to_string();
    row["id"] = json!(id);
    row["email_mac"] = json!("of another member");
    row["role"] = json!("member");
    let names = [
        "id",
        "tenant_id",
        "resource_id",
        "email_mac",
        "sealed",
        "role",
        "state",
        "must_change_password",
        "created_at",
    ];
    let mut other = columns! { "password_hash": () };
    names.iter().for_each(|name| other.set(name, &row[*name]));
    store.commit(WriteBatch::new(vec![Write::insert("members", other)])).await.unwrap();
    let tokens = by_code(control, &store, &owner, &id).await;
    let member = control.authenticate_member(&tokens.access_token).await.unwrap();
    assert_eq!((member.member.as_str(), member.role.as_str()), (id.as_str(), "member"));

    let ids = |page: tenantry_control::view::Page<SessionView>| -> Vec<String> {
        page.data.into_iter().map(|session| session.id.to_string()).collect()
    };
    let (of_owner, of_member) = (owner.session.clone().unwrap(), member.session.clone().unwrap());
    assert_eq!(ids(control.own_sessions(&member, false, &page).await.unwrap()), [of_member.as_str()]);
    assert_eq!(ids(control.own_sessions(&owner, false, &page).await.unwrap()), [of_owner.as_str()]);
    assert_eq!(
        ids(control.own_sessions(&owner, true, &page).await.unwrap()),
        [of_member.as_str(), &of_owner]
    );
    assert_eq!(control.own_sessions(&member, true, &page).await.unwrap_err().code.as_str(), "forbidden");
    let refused = control.revoke_own_session(&member, of_owner.parse().unwrap()).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "not_found");
    let ended = control.revoke_own_session(&owner, of_member.parse().unwrap()).await.unwrap();
    assert_eq!(
        (ended.end_reason, ended.user_agent.as_str()),
        (Some(SessionEnd::Revoked), "Firefox on Linux")
    );
    let refused = control.authenticate_member(&tokens.access_token).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "session_ended");
    // A member that is no longer active refreshes nothing.
    let tokens = by_code(control, &store, &owner, &id).await;
    let removed = Write::delete("members", columns! { "id": id });
    store.commit(WriteBatch::new(vec![removed])).await.unwrap();
    assert_eq!(refresh(control, &tokens).await.err().unwrap(), "refresh_refused");
    store.close().await;
    process.control.stop().await;
}

async fn the_oldest_of_too_many_sessions_is_deleted(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let first = signed_in(&world, control).await;
    let owner = control.authenticate_member(&first.access_token).await.unwrap();
    let store = open(&world).await;
    for _ in 0..99 {
        by_code(control, &store, &owner, &owner.member).await;
    }
    // One second later, so that the first session is not the one that was used longest ago.
    pass(&world, Duration::from_secs(1)).await;
    let first = refresh(control, &first).await.unwrap();
    by_code(control, &store, &owner, &owner.member).await;
    let count = store.find("sessions", &[("tenant_id", json!(owner.tenant))]).await.unwrap().len();
    assert_eq!(count, 100);
    refresh(control, &first).await.unwrap();
    store.close().await;
    process.control.stop().await;
}

async fn an_erasure_deletes_sessions(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let control = &process.control;
    let tokens = signed_in(&world, control).await;
    let tenant = session_of(control, &tokens).tenant;
    let demand = serde_json::from_value(json!({ "reason": "over" })).unwrap();
    control.erase(&Caller::system(), "acme", &demand, None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let store = open(&world).await;
    assert_eq!(
        store.find("sessions", &[("tenant_id", json!(tenant))]).await.unwrap(),
        Vec::<serde_json::Value>::new()
    );
    assert_eq!(
        control.authenticate_member(&tokens.access_token).await.unwrap_err().code.as_str(),
        "tenant_not_active"
    );
    assert_eq!(refresh(control, &tokens).await.err().unwrap(), "refresh_refused");
    store.close().await;
    process.control.stop().await;
}
