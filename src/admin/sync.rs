//! A whole team at once, as SigmaMD tells of it: a line for each, and an answer for each.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api::Api;
use super::body::{Path, Text};
use super::caller::Called;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::Receipt;
use crate::entity::Role;
use crate::id::{PracticeId, UserId};
use crate::lifecycle;
use crate::store::records::TeamSync;
use crate::store::{self, Actor};

/// The most that is read, in bytes: some 100,000 people.
const CONTENT: usize = 16 * 1024 * 1024;
/// So many people are taken in at once.
const BATCH: usize = 500;
/// Lines of JSON.
const NDJSON: &str = "application/x-ndjson";

/// One line: who is on the team, or who is not any more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user_id: Text<UserId>,
    #[serde(default)]
    role: Option<Text<Role>>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    removed: bool,
}

impl Line {
    fn read(text: &[u8]) -> Result<TeamSync, String> {
        let Self { user_id: Text(id), role, name, email, removed } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match (removed, role) {
            (true, None) if name.is_none() && email.is_none() => Ok(TeamSync::Remove { id }),
            (true, _) => Err("somebody who is removed has nothing else".to_owned()),
            (false, Some(Text(role))) => Ok(TeamSync::Put { id, role, name: name.map(Into::into), email: email.map(Into::into) }),
            (false, None) => Err("`role` is missing".to_owned()),
        }
    }
}

/// Takes in a team, a line of JSON for each: `{"user_id", "role", "name", "email"}`, or `{"user_id", "removed": true}`. Answers with a line for each as it is done, and one about all of it
#[utoipa::path(post, path = "/v1/practices/{practice_id}/team/sync", tag = "team", params(Of),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, description = "A line for each, then `{\"done\", \"ok\", \"failed\", \"receipt\"}`.", body = String, content_type = "application/x-ndjson"), Refusals))]
pub async fn sync(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    request: Request,
) -> Result<Response, Problem> {
    caller.must_operate()?;
    let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    if !media.is_some_and(|media| media.trim().eq_ignore_ascii_case(NDJSON)) {
        let detail = format!("the content must be {NDJSON}: a line of JSON for each user");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    api.store.practice(&id).await?;
    // Whoever sends may not read before all is sent: so all is read before anything is answered.
    let content = to_bytes(request.into_body(), CONTENT).await.map_err(|_| Problem::too_large())?;
    let (lines, answer) = mpsc::channel::<Bytes>(16);
    let actor = caller.actor();
    // A task of its own: what has been begun is done to the end, also for somebody who has left.
    tokio::spawn(async move { take_in(&api, &id, &content, &actor, &lines).await });
    let answer = futures_util::stream::unfold(answer, |mut answer| async {
        let line = answer.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), answer))
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(answer)).into_response())
}

async fn take_in(api: &Api, practice: &PracticeId, content: &[u8], by: &Actor, answer: &mpsc::Sender<Bytes>) {
    let (mut ok, mut failed, mut receipt) = (0_u64, 0_u64, None);
    let lines: Vec<(usize, &[u8])> =
        content.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    for batch in lines.chunks(BATCH) {
        let read: Vec<(usize, Result<TeamSync, String>)> = batch.iter().map(|(at, line)| (at + 1, Line::read(line))).collect();
        let rows: Vec<TeamSync> = read.iter().filter_map(|(_, row)| row.as_ref().ok().cloned()).collect();
        let results = match api.lifecycle.sync_team(practice, &rows, by).await {
            Ok((results, done)) => {
                receipt = done.or(receipt);
                results
            }
            Err(error) => {
                let last = json!({ "done": false, "ok": ok, "failed": failed, "detail": why(&error) });
                let _ = answer.send(line(&last)).await;
                return;
            }
        };
        let mut results = results.into_iter();
        let mut text = Vec::new();
        for (at, row) in read {
            let (id, result) = match row {
                Ok(row) => (Some(row.id().clone()), results.next().expect("each row has its result").map_err(|error| error.to_string())),
                Err(why) => (None, Err(why)),
            };
            let told = match result {
                Ok(()) => json!({ "line": at, "user_id": id, "ok": true }),
                Err(why) => json!({ "line": at, "user_id": id, "ok": false, "detail": why }),
            };
            *(if told["ok"] == true { &mut ok } else { &mut failed }) += 1;
            text.extend_from_slice(&line(&told));
        }
        // Nobody may be reading: it is done all the same.
        let _ = answer.send(text.into()).await;
    }
    let _ = answer.send(line(&json!({ "done": true, "ok": ok, "failed": failed, "receipt": receipt.map(Receipt::from) }))).await;
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn why(error: &lifecycle::Error) -> String {
    if !matches!(error, lifecycle::Error::Store(store::Error::NotFound { .. } | store::Error::Conflict(_))) {
        tracing::error!(%error, "a team could not be taken in");
        return "the store does not answer: send the rest again".to_owned();
    }
    error.to_string()
}
