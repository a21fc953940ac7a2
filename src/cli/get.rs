//! `get`: what stands in the tables, as JSON on standard output.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::event::WalletId;
use crate::store::dynamodb::read::{Reader, RecordsOf};

use super::{GetArgs, GetCommand, GetOne, GlobalArgs, backends, show, wrong};

/// What a user's id may take.
const USER_ID_BYTES_MAX: usize = 1024;
/// What source and id may take together, and the name of a record behind them.
const RECORD_ID_BYTES_MAX: usize = 1024 + 1 + 249;

/// Looks up a wallet, a user or a record. Exit code 1 where there is none.
pub async fn get(global: &GlobalArgs, args: &GetArgs) -> Result<ExitCode, anyhow::Error> {
    if let Err(what) = check(&args.command) {
        return wrong(what);
    }
    let loaded = match global.load([]) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let dynamo = backends::dynamo(&loaded.settings, None, 1, None).await?;
    let reader = Reader::new(Arc::new(dynamo));
    let found = match &args.command {
        GetCommand::Wallet(one) => wallet(&reader, one).await?,
        GetCommand::User(one) => {
            let page = reader.mappings_by_user(&one.id, None, one.limit as usize, one.strong).await?;
            (!page.items.is_empty()).then(|| json!({"user_id": one.id, "wallets": page.items, "next": page.next}))
        }
        GetCommand::Record(one) => reader.record(&one.id, one.strong).await?.map(|record| json!(record)),
    };
    let Some(found) = found else {
        anyhow::bail!("nothing is recorded under this id");
    };
    let mut out = serde_json::to_vec_pretty(&found)?;
    out.push(b'\n');
    show(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether there can be such an id, so that no table is asked about one that there cannot be.
fn check(command: &GetCommand) -> Result<(), String> {
    let within = |id: &str, bytes_max: usize, what: &str| {
        let sound = (1..=bytes_max).contains(&id.len());
        let bytes = id.len();
        if sound { Ok(()) } else { Err(format!("{what} has 1 to {bytes_max} bytes, and this one has {bytes}")) }
    };
    match command {
        GetCommand::Wallet(one) => {
            WalletId::parse(&one.id).map(drop).map_err(|refusal| format!("not a wallet id: {}", refusal.detail))
        }
        GetCommand::User(one) => within(&one.id, USER_ID_BYTES_MAX, "a user's id"),
        GetCommand::Record(one) => {
            let what = "a record's id (source|id or source|id|name, % written %25 and | written %7C in each part)";
            within(&one.id, RECORD_ID_BYTES_MAX, what)
        }
    }
}

/// A wallet under any notation of its address. `--strong` is for the wallet's own item: users and records come from indexes.
async fn wallet(reader: &Reader, one: &GetOne) -> Result<Option<Value>, anyhow::Error> {
    let id = WalletId::parse(&one.id).map_err(|refusal| anyhow::anyhow!("not a wallet id: {}", refusal.detail))?;
    let id = id.as_str();
    let state = reader.wallet(id, one.strong).await?;
    if one.strong {
        return Ok(state.map(|state| json!({"wallet": state})));
    }
    let limit = one.limit as usize;
    let newest = RecordsOf { wallet_id: id.to_owned(), newest_first: true, limit, ..RecordsOf::default() };
    let records = reader.wallet_records(&newest, false).await?;
    let users = reader.mappings_by_wallet(id, None, limit, false).await?;
    if state.is_none() && records.items.is_empty() && users.items.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        json!({"wallet": state, "users": users.items, "records": records.items, "more_records_after": records.next}),
    ))
}
