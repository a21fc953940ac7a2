//! `get`: what stands in the tables, as JSON on standard output.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::event::WalletId;
use crate::store::dynamodb::read::{Reader, RecordsOf};

use super::{GetArgs, GetCommand, GetOne, GlobalArgs, backends};

/// Looks up a wallet, a user or a record. Exit code 1 where there is none.
pub async fn get(global: &GlobalArgs, args: &GetArgs) -> Result<ExitCode, anyhow::Error> {
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
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &found)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
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
