use std::collections::BTreeSet;

use super::*;
use crate::http::routes::{Access, ROUTES, Route};

/// What is served beside the list of routes, and described all the same.
const BESIDE: &[(&str, &str)] = &[
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/v1/websocket"),
    ("get", "/v1/websocket/provisioning"),
];

/// Every operation with its method and path.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push((method.clone(), path.clone(), operation));
        }
    }
    all
}

#[test]
fn the_document_describes_every_route_and_no_other() {
    let document = document();
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let routes = ROUTES.iter().map(|route| (route.method, route.path));
    let served: BTreeSet<_> = routes
        .chain(BESIDE.iter().copied())
        .map(|(method, path)| (method.to_owned(), path.replace("{*", "{")))
        .collect();
    let missing: Vec<_> = served.difference(&described).collect();
    assert!(missing.is_empty(), "describe these in src/http/openapi: {missing:?}");
    let unknown: Vec<_> = described.difference(&served).collect();
    assert!(unknown.is_empty(), "these are not served: {unknown:?}");
}

#[test]
fn an_operation_says_what_the_list_of_routes_says() {
    let document = document();
    for Route {
        method,
        path,
        access,
        max_body,
        service,
        strangers,
        devices,
    } in ROUTES
    {
        let operation = &document["paths"][path.replace("{*", "{")][method];
        assert_eq!(operation["x-max-body-bytes"], *max_body, "{method} {path}");
        assert_eq!(operation["x-access"], format!("{access:?}"), "{method} {path}");
        assert_eq!(operation["x-service"], format!("{service:?}"), "{method} {path}");
        assert_eq!(operation["x-limits"]["strangers"], strangers.name(), "{method} {path}");
        assert_eq!(operation["x-limits"]["devices"], devices.name(), "{method} {path}");
        let open = operation["security"].as_array().unwrap().is_empty();
        let anyone = matches!(access, Access::Anyone | Access::Anonymous | Access::RefreshToken);
        assert_eq!(open, anyone, "{method} {path}");
    }
}

#[test]
fn the_parameters_of_a_path_are_those_of_its_template() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let template: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let described: BTreeSet<_> = parameters
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, template, "{method} {path}");
    }
}

#[test]
fn what_is_referred_to_is_there_and_nothing_else() {
    let document = document();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let used: BTreeSet<_> = text
        .split("\"#/components/schemas/")
        .skip(1)
        .map(|rest| &rest[..rest.find('"').unwrap()])
        .collect();
    let there: BTreeSet<_> = schemas.keys().map(String::as_str).collect();
    assert_eq!(used, there);
}

#[test]
fn a_type_has_one_schema_whether_it_is_read_or_written() {
    // Two types of one name get a number behind it, of which readers of the document could make nothing.
    let document = document();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let numbered = name.ends_with(|c: char| c.is_ascii_digit()) && !name.contains("Base64Of");
        assert!(!numbered, "{name}");
    }
}

#[test]
fn every_answer_of_success_and_every_refusal_is_said() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let answers = operation["responses"].as_object().unwrap();
        let absent = answers
            .get("404")
            .is_some_and(|answer| answer.to_string().contains("\"feature_absent\""));
        assert!(
            absent || answers.keys().any(|status| ("100".."400").contains(&status.as_str())),
            "{method} {path} never succeeds"
        );
        let takes = operation.get("requestBody").is_some();
        assert!(!takes || answers.contains_key("413"), "{method} {path}");
    }
}
