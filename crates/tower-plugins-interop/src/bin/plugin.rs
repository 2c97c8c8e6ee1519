//! A plugin that is written with the SDK: see [`tower_plugins_interop::plugin`].

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tower_plugins_interop::plugin::serve().await
}
