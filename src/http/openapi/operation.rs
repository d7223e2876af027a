//! What is said of one route, and how the document has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::http::routes::{Access, Route};

/// What is said of one method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) route: Option<&'static Route>,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    pub(super) answers: BTreeMap<u16, Answer>,
}

/// What can come under one status.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) when: Vec<&'static str>,
    /// It can come without a body.
    pub(super) empty: bool,
    pub(super) codes: BTreeSet<&'static str>,
    /// Content type and schema.
    pub(super) bodies: Vec<(&'static str, Value)>,
    pub(super) headers: BTreeMap<&'static str, Value>,
}

impl Operation {
    /// As it is in the document.
    pub(super) fn into_value(self) -> Value {
        let answers: Map<String, Value> = self
            .answers
            .into_iter()
            .map(|(status, answer)| (status.to_string(), answer.into_value(self.method == "head")))
            .collect();
        let mut value = json!({
            "operationId": format!("{} {}", self.method, self.path),
            "tags": [self.tag],
            "summary": self.summary,
            "security": self.route.map_or(json!([]), |route| security(route.access)),
            "responses": answers,
        });
        if !self.parameters.is_empty() {
            value["parameters"] = self.parameters.into();
        }
        if let Some(body) = self.body {
            value["requestBody"] = body;
        }
        if let Some(route) = self.route {
            value["x-max-body-bytes"] = route.max_body.into();
            value["x-access"] = format!("{:?}", route.access).into();
            value["x-limits"] = json!({ "strangers": route.strangers.name(), "devices": route.devices.name() });
            value["x-service"] = format!("{:?}", route.service).into();
        }
        value
    }
}

impl Answer {
    /// A header that it has.
    pub(super) fn header(&mut self, name: &'static str, schema: Value) {
        self.headers.insert(name, json!({ "schema": schema }));
    }

    /// Answers to HEAD have no bodies, whatever they say.
    fn into_value(mut self, head: bool) -> Value {
        if !self.codes.is_empty() {
            let schema = json!({
                "type": "object",
                "required": ["code", "message"],
                "properties": { "code": { "enum": self.codes }, "message": { "type": "string" } },
            });
            self.bodies.push((JSON, schema));
        }
        let mut content: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (content_type, schema) in self.bodies {
            content.entry(content_type).or_default().push(schema);
        }
        let content: Map<String, Value> = content
            .into_iter()
            .map(|(content_type, mut schemas)| {
                let schema = match schemas.len() {
                    1 => schemas.remove(0),
                    _ => json!({ "anyOf": schemas }),
                };
                (content_type.to_owned(), json!({ "schema": schema }))
            })
            .collect();
        if self.when.is_empty() {
            self.when.push("Refused");
        }
        self.headers.insert(
            "x-signal-timestamp",
            json!({ "schema": { "type": "integer", "minimum": 0 } }),
        );
        let mut value = json!({ "description": self.when.join("; "), "headers": self.headers });
        if !content.is_empty() && !head {
            value["content"] = content.into();
            if self.empty {
                // What is described is a body, if there is one: the document's format has no word for it.
                value["x-may-be-empty"] = true.into();
            }
        }
        value
    }
}

fn security(access: Access) -> Value {
    match access {
        Access::Anyone | Access::Anonymous => json!([]),
        Access::Number => json!([{ "number": [] }]),
        Access::LinkToken => json!([{ "newDevice": [] }]),
        Access::Device | Access::Primary => json!([{ "device": [] }, { "token": [] }]),
        Access::Password => json!([{ "device": [] }]),
        // Its proof is in the body.
        Access::RefreshToken => json!([]),
        Access::DeviceOrAccessKey => json!([{ "device": [] }, { "token": [] }, { "accessKey": [] }]),
        Access::UploadForm => json!([{ "uploadForm": [] }]),
        Access::AccessKeys => json!([{ "accessKey": [] }]),
    }
}

pub(super) const JSON: &str = "application/json";
