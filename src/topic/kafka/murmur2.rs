//! Java's default placement: murmur2 over the key, as org.apache.kafka.common.utils.Utils has it.

/// The partition of these bytes among `partitions`: Java's `toPositive(murmur2(bytes)) % partitions`. Java spreads keyless
/// messages; here they hash as no bytes at all, like an empty key, so that one rule holds for both.
pub fn partition_of(bytes: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(bytes) & 0x7fff_ffff;
    // Positive and below 2^31, so the conversion keeps it.
    i32::try_from(positive % u32::try_from(partitions).unwrap_or(1).max(1)).unwrap_or(0)
}

fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Java's length is 32 bits; longer keys do not exist.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs of Kafka's own UtilsTest.testMurmur2.
    #[test]
    fn hashes_are_java_s() {
        let pairs: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in pairs {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn a_partition_is_never_outside_whatever_the_count() {
        assert_eq!(partition_of(b"21", 1), 0);
        assert_eq!(partition_of(b"21", 0), 0);
        // 0x7fffffff & -973932308 = 1173551340
        assert_eq!(partition_of(b"21", 12), 1_173_551_340 % 12);
    }
}
