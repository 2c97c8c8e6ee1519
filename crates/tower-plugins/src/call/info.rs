//! What a plugin says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::Value;

use crate::config::Address;
use crate::error::{Error, Kind};
use crate::node::Node;
use crate::{Body, Plugin};

/// What is read of an answer.
const MAX: usize = 1 << 20;

/// What a plugin is, as it says itself, or else as its config does: [`Plugin::info`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The plugin's own name, which need not be the one that the config gives it.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// One sentence for people; often empty.
    pub description: String,
    /// What it can do, in words of its own.
    pub capabilities: Vec<String>,
    /// Anything else that it says.
    pub metadata: BTreeMap<String, String>,
    /// Who says all this.
    pub source: InfoSource,
}

/// Where a [`PluginInfo`] is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InfoSource {
    /// The plugin has said it.
    Plugin,
    /// The plugin says nothing of itself: it is what the config knows.
    #[default]
    Config,
}

/// As it is answered over HTTP.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

impl PluginInfo {
    fn of_config(node: &Node) -> Self {
        Self {
            name: node.spec().name.as_str().to_owned(),
            ..Self::default()
        }
    }

    fn said(said: Said, node: &Node) -> Self {
        let of_config = Self::of_config(node);
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let metadata = said.metadata.into_iter();
        Self {
            name: Some(said.name)
                .filter(|name| !name.is_empty())
                .unwrap_or(of_config.name),
            version: Some(said.version)
                .filter(|version| !version.is_empty())
                .or(of_config.version),
            description: said.description,
            capabilities: said.capabilities,
            metadata: metadata.map(|(name, value)| (name, text(value))).collect(),
            source: InfoSource::Plugin,
        }
    }
}

pub(crate) async fn info(plugin: &Plugin) -> Result<PluginInfo, Error> {
    let node = plugin.find(&HeaderMap::new(), None).await?;
    let said = ask(&node).await;
    match said {
        Ok(Some(said)) => Ok(PluginInfo::said(said, &node)),
        Ok(None) => Ok(PluginInfo::of_config(&node)),
        Err(error) => Err(error.of_plugin(&plugin.shared_name())),
    }
}

/// What the plugin answers; nothing, if it has no answer to such a question.
async fn ask(node: &Arc<Node>) -> Result<Option<Said>, Error> {
    #[cfg(feature = "grpc")]
    if let Some(spec) = &node.spec().upstream.grpc {
        let client = super::grpc::client(Arc::clone(node), spec, MAX);
        return match super::grpc::info(client).await {
            Ok(info) => Ok(Some(Said {
                name: info.name,
                version: info.version,
                description: info.description,
                capabilities: info.capabilities,
                metadata: (info.metadata.into_iter())
                    .map(|(name, value)| (name, Value::String(value)))
                    .collect(),
            })),
            Err(error) if error.answered_code() == Some(tonic::Code::Unimplemented as i32) => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
    }
    let first = node.spec().upstream.endpoints.first();
    if first.is_some_and(|one| {
        matches!(
            one.address,
            Address::InProcess { .. }
                | Address::ExecJson { .. }
                | Address::Subprocess { .. }
                | Address::Attached(_)
        )
    }) {
        return Ok(None);
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/info");
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let (head, body) = Arc::clone(node).call(request).await?.into_parts();
    if let StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED =
        head.status
    {
        return Ok(None);
    }
    if !head.status.is_success() {
        return Err(Error::new(Kind::Status(head.status)));
    }
    let body = Limited::new(body, MAX).collect().await;
    let body = body.map_err(Error::from_body)?.to_bytes();
    let said = serde_json::from_slice(&body);
    said.map(Some)
        .map_err(|error| Error::caused_by(Kind::Decode, error))
}
