//! Puts the document together.
//!
//! What the list of routes knows comes from there: who may use a route, its largest body, how it is served, and the
//! refusals that follow from them. Field names, and which fields must be there, come from the types that are read and
//! written. The rest is said by hand in the files beside this one, and held against real answers by the tests.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::http::routes::{Access, ROUTES, Service};

use super::operation::{Answer, JSON, Operation};

/// The document as it grows.
pub(super) struct Api {
    read: SchemaGenerator,
    written: SchemaGenerator,
    operations: Vec<Operation>,
    tag: &'static str,
}

/// One route, as more is said of it.
pub(super) struct Describing<'a> {
    api: &'a mut Api,
    at: usize,
}

impl Api {
    pub(super) fn new() -> Self {
        let settings = |settings: SchemaSettings| {
            settings.with(|settings| settings.definitions_path = "/components/schemas".into())
        };
        Self {
            read: settings(SchemaSettings::draft2020_12().for_deserialize()).into_generator(),
            written: settings(SchemaSettings::draft2020_12().for_serialize()).into_generator(),
            operations: Vec::new(),
            tag: "",
        }
    }

    /// What is described from now on belongs to this resource.
    pub(super) fn resource(&mut self, name: &'static str) -> &mut Self {
        self.tag = name;
        self
    }

    /// Begins to describe a route of the list. The refusals that follow from its row are said already.
    pub(super) fn route(&mut self, method: &'static str, path: &'static str, summary: &'static str) -> Describing<'_> {
        let route = ROUTES.iter().find(|route| route.method == method && route.path == path);
        let mut describing = self.beside(method, path, summary);
        describing.operation().route = route;
        if let Some(route) = route {
            describing = describing.by_access(route.access);
            if route.service == Service::Usual {
                describing = describing.done(408, "The answer took too long");
            }
        }
        if path.contains('{') {
            describing = describing
                .refuses(400, &["malformed_path"])
                .refuses(404, &["not_found"])
                .refuses(405, &["method_not_allowed"]);
        }
        describing.refuses(503, &["unavailable"])
    }

    /// Begins to describe what is served beside the list.
    pub(super) fn beside(&mut self, method: &'static str, path: &'static str, summary: &'static str) -> Describing<'_> {
        self.operations.push(Operation {
            method,
            path,
            tag: self.tag,
            summary,
            route: None,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
        });
        let at = self.operations.len() - 1;
        Describing { api: self, at }
    }

    /// The paths and the schemas of the document.
    pub(super) fn finish(mut self) -> (Map<String, Value>, Map<String, Value>) {
        let mut paths = Map::new();
        for operation in self.operations {
            // A parameter that takes the rest of the path is a parameter like others.
            let path = paths
                .entry(operation.path.replace("{*", "{"))
                .or_insert_with(|| json!({}));
            let method = operation.method;
            path[method] = operation.into_value();
        }
        let mut schemas = self.read.take_definitions(true);
        schemas.extend(self.written.take_definitions(true));
        (paths, schemas)
    }
}

impl Describing<'_> {
    fn operation(&mut self) -> &mut Operation {
        &mut self.api.operations[self.at]
    }

    fn answer(&mut self, status: u16) -> &mut Answer {
        self.operation().answers.entry(status).or_default()
    }

    fn by_access(self, access: Access) -> Self {
        let limited = self.refuses(429, &["rate_limited"]).refuses(400, &["secret_in_query"]);
        match access {
            Access::Anyone => limited,
            Access::Anonymous => limited.refuses(400, &["anonymous_only"]),
            Access::Number | Access::LinkToken | Access::RefreshToken | Access::Device | Access::Primary => {
                limited.refuses(401, &["unauthorized"])
            }
            Access::Password => limited
                .refuses(401, &["unauthorized"])
                .refuses(403, &["password_needed"]),
            Access::UploadForm => limited.refuses(403, &["upload_form"]),
            Access::DeviceOrAccessKey | Access::AccessKeys => limited
                .refuses(401, &["unauthorized"])
                .refuses(400, &["two_authorizations"]),
        }
    }

    /// A parameter of the path.
    pub(super) fn path<T: JsonSchema>(mut self, name: &'static str, what: &'static str) -> Self {
        let schema = self.api.read.subschema_for::<T>();
        self.operation().parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": what, "schema": schema,
        }));
        self
    }

    /// The parameters of the query, which are the fields of the type that is read from it.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        let schema = T::json_schema(&mut self.api.read).to_value();
        let required: Vec<_> = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": required.contains(&json!(name)),
                "schema": without_null(schema),
            });
            if let Some(what) = schema.get("description") {
                parameter["description"] = what.clone();
            }
            self.operation().parameters.push(parameter);
        }
        self.refuses(400, &["malformed_query"])
    }

    /// A header of the request.
    pub(super) fn header<T: JsonSchema>(mut self, name: &'static str, required: bool, what: &'static str) -> Self {
        let schema = self.api.read.subschema_for::<T>();
        self.operation().parameters.push(json!({
            "name": name, "in": "header", "required": required, "description": what, "schema": schema,
        }));
        self
    }

    /// A JSON body of that type.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        let schema = self.api.read.subschema_for::<T>();
        self.operation().body = Some(json!({
            "required": true, "content": { JSON: { "schema": schema } },
        }));
        self.refuses(400, &["malformed_json", "body_incomplete"])
            .refuses(413, &["body_too_large"])
            .refuses(422, &["unexpected_json"])
    }

    /// A body of bytes.
    pub(super) fn takes_bytes(mut self, content_type: &'static str, what: &'static str) -> Self {
        self.operation().body = Some(json!({
            "required": true, "description": what, "content": { content_type: { "schema": {} } },
        }));
        self.refuses(400, &["body_incomplete"])
            .refuses(413, &["body_too_large"])
    }

    /// An answer with a JSON body of that type.
    pub(super) fn answers<T: JsonSchema>(mut self, status: u16, when: &'static str) -> Self {
        let schema = self.api.written.subschema_for::<T>().to_value();
        let answer = self.answer(status);
        answer.when.push(when);
        answer.bodies.push((JSON, schema));
        self
    }

    /// An answer with a body that is not JSON.
    pub(super) fn answers_bytes(mut self, status: u16, content_type: &'static str, when: &'static str) -> Self {
        let answer = self.answer(status);
        answer.when.push(when);
        answer.bodies.push((content_type, json!({})));
        self
    }

    /// An answer without a body.
    pub(super) fn done(mut self, status: u16, when: &'static str) -> Self {
        let answer = self.answer(status);
        answer.when.push(when);
        answer.empty = true;
        self
    }

    /// Refusals with these codes.
    pub(super) fn refuses(mut self, status: u16, codes: &[&'static str]) -> Self {
        let answer = self.answer(status);
        answer.codes.extend(codes);
        match status {
            401 => answer.header("www-authenticate", json!({ "type": "string" })),
            429 | 503 => answer.header("retry-after", json!({ "type": "integer", "minimum": 0 })),
            _ => {}
        }
        self
    }

    /// A header of the answer with that status.
    pub(super) fn with_header(mut self, status: u16, name: &'static str, schema: Value) -> Self {
        self.answer(status).header(name, schema);
        self
    }
}

/// A query cannot say null: an option is left out.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [kind] = &kinds[..] {
            schema["type"] = kind.clone();
        }
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [choice] = &choices[..] {
            return choice.clone();
        }
    }
    schema
}
