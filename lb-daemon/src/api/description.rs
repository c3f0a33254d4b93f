//! What `/openapi.json` says beyond what each call says of itself.

use serde_json::{Value, json};

use super::problem::CONTENT_TYPE;

/// What the text of a parameter must look like, by the parameter's name.
fn shape(parameter: &str) -> Option<Value> {
    match parameter {
        // As `versions` writes them.
        "If-Match" => Some(json!({"pattern": r#"^(\*|"[0-9a-f]{16}"(, "[0-9a-f]{16}")*)$"#})),
        "If-None-Match" => Some(json!({"pattern": r"^\*$"})),
        "farm" => Some(json!({"pattern": "^[a-z0-9-]{1,63}$"})),
        "client" => Some(json!({"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})),
        _ => None,
    }
}

/// Completes a description: any call may meet a problem that no call names (a body too large, a daemon that is stopping,
/// no room for one more), and what stands in a query or a header is never null and never empty.
pub(super) fn complete(mut description: Value) -> Value {
    let Some(paths) = description.get_mut("paths").and_then(Value::as_object_mut) else { return description };
    for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut()) {
        if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
            let problem = json!({CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}});
            responses.insert(
                "default".to_owned(),
                json!({"description": "Any other problem; nothing was changed unless `detail` says so", "content": problem}),
            );
        }
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        parameters.into_iter().flatten().for_each(constrain);
    }
    description
}

fn constrain(parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let schema = &mut parameter["schema"];
    if let Some(types) = schema["type"].as_array() {
        let mut types = types.iter().filter(|kind| *kind != "null").cloned();
        if let (Some(only), None) = (types.next(), types.next()) {
            schema["type"] = only;
        }
    }
    if schema["type"] == "string" {
        schema["minLength"] = json!(1);
        if let (Some(schema), Some(Value::Object(shape))) = (schema.as_object_mut(), shape(&name)) {
            schema.extend(shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_never_null_or_empty_and_every_call_may_meet_a_problem() {
        let parameter =
            |name: &str| json!({"name": name, "in": "query", "schema": {"type": ["string", "null"]}});
        let call =
            json!({"parameters": [parameter("farm"), parameter("If-None-Match")], "responses": {"200": {}}});
        let described = complete(json!({"paths": {"/v1/farms": {"get": call}}}));
        let call = &described["paths"]["/v1/farms"]["get"];
        assert_eq!(
            call["parameters"][0]["schema"],
            json!({"type": "string", "minLength": 1, "pattern": "^[a-z0-9-]{1,63}$"})
        );
        assert_eq!(call["parameters"][1]["schema"]["pattern"], json!(r"^\*$"));
        assert_eq!(
            call["responses"]["default"]["content"][CONTENT_TYPE]["schema"]["$ref"],
            json!("#/components/schemas/Problem")
        );
    }
}
