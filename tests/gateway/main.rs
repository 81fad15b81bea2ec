//! Stories told through the real listeners: a gateway, a store and an upstream of its own for each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod api;
mod canary;
mod changes;
mod grace;
mod headers;
mod http2;
mod issuers;
mod limits;
mod logs;
mod management;
mod oauth;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod postgres;
mod process;
mod raw;
mod serve;
mod soak;
mod start;
mod support;
mod tls;
mod upgrade;
mod upstreams;
mod websocket;
