//! The shipped IAM policies.

use serde_json::Value;

fn statements(file: &str) -> Vec<Value> {
    let path = format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"));
    let policy: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

fn texts(value: &Value) -> Vec<String> {
    let one = std::slice::from_ref(value);
    value.as_array().map_or(one, Vec::as_slice).iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_consumer_can_only_add_to_records_and_ledger() {
    let mut allowed = Vec::new();
    for statement in statements("iam-policy.json") {
        assert_eq!(statement["Effect"], "Allow");
        let resources = texts(&statement["Resource"]);
        if resources.iter().any(|arn| arn.ends_with("wallet_records") || arn.ends_with("ledger") || arn.ends_with('*'))
        {
            allowed.extend(texts(&statement["Action"]).into_iter().filter(|action| action.starts_with("dynamodb:")));
        }
    }
    allowed.sort();
    assert_eq!(
        allowed,
        ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:PartiQLInsert", "dynamodb:Query"]
    );
}

#[test]
fn nobody_can_delete_and_no_action_is_a_pattern_of_all() {
    for file in ["iam-policy.json", "iam-policy-archives.json", "iam-policy-operator.json"] {
        for statement in statements(file) {
            for action in texts(&statement["Action"]) {
                assert!(!action.contains("Delete") && !action.ends_with(":*") && action != "*", "{file}: {action}");
            }
            assert!(!texts(&statement["Resource"]).contains(&"*".to_owned()), "{file}");
        }
    }
}

#[test]
fn the_operator_may_make_every_table() {
    let statements = statements("iam-policy-operator.json");
    let create = statements.iter().find(|statement| statement["Sid"] == "CreateTables").unwrap();
    let mut allowed: Vec<String> =
        texts(&create["Resource"]).iter().map(|arn| arn.rsplit_once("PREFIX").unwrap().1.to_owned()).collect();
    let mut tables = ["wallet_records", "wallet_inventory", "user_wallet_mapping", "wallet_requests", "ledger"];
    tables.sort_unstable();
    allowed.sort();
    assert_eq!(allowed, tables);
}
