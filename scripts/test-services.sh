#!/usr/bin/env bash
# Installs what the integration tests start by themselves: Java, Maven and redis-server (from Debian, only where they are
# missing) and Apache Kafka's jars (from Maven Central, into target/test-services/kafka/libs). Run it once; a second run
# does nothing. The tests start and stop the servers.
set -euo pipefail

kafka_version=4.4.0
root=$(cd "$(dirname "$0")/.." && pwd)
home=${CARGO_TARGET_DIR:-$root/target}/test-services/kafka

missing=()
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v setpriv >/dev/null || missing+=(util-linux)
if ((${#missing[@]})); then
    echo "test-services: installing ${missing[*]} with apt-get" >&2
    as_root=()
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    # redis-server's package would start a server of its own.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [[ -e $home/libs-$kafka_version ]]; then
    exit 0
fi
echo "test-services: fetching Apache Kafka $kafka_version (54 MB) from Maven Central" >&2
mkdir -p "$home"
cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>recordkeeper</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
  </dependencies>
</project>
POM
# A half-filled folder must not look finished: fill a new one, then rename it.
staging=$(mktemp -d "$home/libs.XXXXXX")
trap 'rm -rf "$staging"' EXIT
(cd "$home" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$staging" -DincludeScope=runtime)
chmod 755 "$staging"
rm -rf "$home/libs"
mv "$staging" "$home/libs"
touch "$home/libs-$kafka_version"
echo "test-services: ready" >&2
