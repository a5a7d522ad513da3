//! Which of a manifest's blobs is the component.
//!
//! Owns the layout that is understood: one layer of WebAssembly, as the CNCF's "Wasm OCI Artifact layout" has it. The configuration that a manifest
//! names is not looked at: what a component imports is seen in the component.

use serde::Deserialize;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The second is for registries that refuse the first; they got to know it earlier.
const LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
const DIGEST_CHARS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    #[serde(default)]
    layers: Vec<Blob>,
    #[serde(default)]
    manifests: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: String,
    size: u64,
}

/// The component, as a manifest names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// SHA-256, in hex.
    pub(super) digest: String,
    pub(super) bytes: u64,
}

/// The layer that is the component.
///
/// # Errors
/// What there is in its place.
pub(super) fn layer(manifest: &[u8]) -> Result<Layer, String> {
    let Manifest {
        media_type,
        layers,
        manifests,
    } = serde_json::from_slice(manifest).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    if media_type.as_deref() == Some(INDEX) || !manifests.is_empty() {
        let found: Vec<&str> = manifests.iter().map(|blob| blob.digest.as_str()).collect();
        return Err(format!(
            "is an index; name one of its manifests: {}",
            found.join(", ")
        ));
    }
    if let Some(other) = media_type.filter(|other| other != MANIFEST) {
        return Err(format!("its manifest is {other:?}, and expected is {MANIFEST:?}"));
    }
    let [layer] = &layers[..] else {
        let count = layers.len();
        return Err(format!(
            "has {count} layers, and expected is one, {:?}",
            LAYERS[0]
        ));
    };
    if !LAYERS.contains(&layer.media_type.as_str()) {
        let found = &layer.media_type;
        return Err(format!("its layer is {found:?}, and expected is {:?}", LAYERS[0]));
    }
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digest = layer.digest.strip_prefix("sha256:").unwrap_or_default();
    if digest.len() != DIGEST_CHARS || !digest.bytes().all(is_hex) {
        return Err(format!(
            "its layer has the digest {:?}, and expected is sha256",
            layer.digest
        ));
    }
    Ok(Layer {
        digest: digest.to_owned(),
        bytes: layer.size,
    })
}
