//! Server-sent events. A stream ends when its operation is done, when the server drains, or after 15 minutes; the client
//! reconnects with the last id it has received. The key is authenticated again before each message and each keep-alive, so
//! that one that was revoked, or whose tenant was suspended, receives nothing more.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use serde::Serialize;
use tenantry_control::access::Caller;
use tenantry_control::view::{EventView, OperationView};
use tenantry_engine::Changes;
use tenantry_model::id::OperationId;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};

use super::App;

/// Longest duration of one connection.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Time between comments that keep the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause that clients are told to make before they reconnect.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// Events per read.
const BATCH: u64 = 100;

type Message = Result<Event, Infallible>;

fn sse<S: Stream<Item = Message> + Send + 'static>(
    messages: S,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Creates a message. Serializing the views cannot fail; if it did, the message would be empty.
fn message<T: Serialize>(id: i64, data: &T) -> Message {
    let event = Event::default().id(id.to_string()).retry(RECONNECT_DELAY);
    Ok(event.json_data(data).unwrap_or_else(|_| Event::default()))
}

/// Returns the work's result, or `None` once the server drains or the connection has reached its end.
async fn while_alive<T>(app: &App, end: Instant, work: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        () = app.draining.cancelled() => None,
        () = tokio::time::sleep_until(end) => None,
        result = work => result,
    }
}

/// Streams an operation: its present state, unless the client has it already, then each change until it is
/// done.
pub fn operation(
    app: Arc<App>,
    caller: Caller,
    now: OperationView,
    changes: Changes,
    seen: Option<i64>,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    let end = Instant::now() + MAX_AGE;
    let id = now.id;
    let first = (seen < Some(now.version)).then_some(now);
    let seen = first.as_ref().map_or(seen, |view| Some(view.version)).unwrap_or_default();
    let start = (first, changes, seen, false);
    sse(stream::unfold(start, move |(first, mut changes, seen, over)| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            if over {
                return None;
            }
            let view = match first {
                Some(view) => view,
                None => while_alive(&app, end, next_change(&app, &caller, id, &mut changes, seen)).await?,
            };
            Some((message(view.version, &view), (None, changes, view.version, view.done)))
        }
    }))
}

/// Waits for the operation's next change. `None` ends the stream, and the client reconnects.
async fn next_change(
    app: &App,
    caller: &Caller,
    id: OperationId,
    changes: &mut Changes,
    seen: i64,
) -> Option<OperationView> {
    loop {
        match timeout(KEEP_ALIVE, changes.next()).await {
            Ok(Ok(run)) if run.operation.version <= seen => continue,
            // Some changes may have been missed, or the key revoked; read the present state.
            Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) | Err(_) => {}
            Ok(Err(broadcast::error::RecvError::Closed)) => return None,
        }
        let view = app.control.operation(caller, id).await.ok()?;
        // After the read: what was read before the key was revoked is not sent afterwards.
        app.control.reauthenticate(caller).await.ok()?;
        if view.version > seen {
            return Some(view);
        }
    }
}

/// Streams all events after this sequence number.
pub fn events(
    app: Arc<App>,
    caller: Caller,
    after: i64,
) -> Sse<impl Stream<Item = Message> + Send + 'static> {
    let end = Instant::now() + MAX_AGE;
    let head = app.control.event_head();
    let batches = stream::unfold((head, after), move |(mut head, after)| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            let batch = while_alive(&app, end, next_events(&app, &caller, &mut head, after)).await?;
            let last = batch.last().map_or(after, |event| event.seq);
            let messages: Vec<Message> = batch.iter().map(|event| message(event.seq, event)).collect();
            Some((stream::iter(messages), (head, last)))
        }
    });
    sse(futures::StreamExt::flatten(batches))
}

/// Waits until there are further events and reads them.
async fn next_events(
    app: &App,
    caller: &Caller,
    head: &mut watch::Receiver<i64>,
    after: i64,
) -> Option<Vec<EventView>> {
    loop {
        // Marked as seen before the read, so that events sealed meanwhile wake this task.
        head.borrow_and_update();
        let events = app.control.events(caller, after, BATCH).await.ok()?;
        // After the read: what was read before the key was revoked is not sent afterwards.
        app.control.reauthenticate(caller).await.ok()?;
        if !events.is_empty() {
            return Some(events);
        }
        if let Ok(changed) = timeout(KEEP_ALIVE, head.changed()).await {
            changed.ok()?;
        }
    }
}
