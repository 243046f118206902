#!/usr/bin/env bash
# The app without Android's SDK: sources -> tests on the JVM -> signed APK, from Maven Central and Debian alone.
#
#   android_demo/build.sh [--bundle FOLDER] [--no-tests] [--debug]
#
#   --bundle FOLDER   put a bundle that tflite_export.export_bundle wrote into the APK
#   --no-tests        compile and pack alone
#   --debug           debuggable: StrictMode tells of work on the main thread
#
# Needs a JDK from 17 on, mvn, aapt2, zipalign, apksigner, zip, unzip:
#   sudo apt-get install maven default-jdk-headless aapt zipalign apksigner zip unzip
set -euo pipefail
bundle='' goal=test debug=()
while [ $# -gt 0 ]; do
    case "$1" in
        --bundle) bundle=$(realpath "${2:?--bundle needs a folder}"); shift ;;
        --no-tests) goal=test-compile ;;
        --debug) debug=(--debug-mode) ;;
        *) sed -n '2,12s/^# \?//p' "$0"; exit 2 ;;
    esac
    shift
done
cd "$(dirname "${BASH_SOURCE[0]}")"
for tool in java javac keytool mvn aapt2 zipalign apksigner zip unzip; do
    command -v "$tool" > /dev/null || { echo "$tool is missing: sudo apt-get install maven default-jdk-headless aapt zipalign apksigner zip unzip" >&2; exit 3; }
done
[ -z "$bundle" ] || [ -f "$bundle/manifest.json" ] || { echo "$bundle is no bundle: it has no manifest.json" >&2; exit 2; }

package=dev.tfcompress.demo version=1.0 code=1 min=26 target=36
out=$PWD/build/offline sources=$PWD/app/src/main
# Short runs of Java on few cores: the quick compiler and one thread that collects are faster.
brief=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC)
export MAVEN_OPTS="${MAVEN_OPTS:-${brief[*]}}"
maven() { mvn -q -B -f offline/pom.xml "$@"; }
mkdir -p "$out"/{lib,gen,test/com/android/tools,screens} && rm -rf "$out"/{dex,pack,resources.zip}

[ -f "$out/downloads/tensorflow-lite.aar" ] && [ "$out/downloads/r8.jar" -nt offline/pom.xml ] || {
    maven initialize && touch "$out/downloads/r8.jar"
}
for archive in "$out"/downloads/*.aar; do
    unzip -p "$archive" classes.jar > "$out/lib/$(basename "$archive" .aar).jar"
done

# Resources. Gradle gives the package and the versions by its own files, so the manifest does not have them.
sed "s/<manifest /<manifest package=\"$package\" /" "$sources/AndroidManifest.xml" > "$out/AndroidManifest.xml"
aapt2 compile --dir "$sources/res" -o "$out/resources.zip"
link() {
    # Debian's aapt2 is older than <uses-native-library>.
    aapt2 link --warn-manifest-validation -I "$out/downloads/android-all.jar" --manifest "$out/AndroidManifest.xml" --java "$out/gen" \
        --min-sdk-version $min --target-sdk-version $target --version-code $code --version-name $version \
        "$@" "$out/resources.zip" 2> >(grep -vi "unknown chunk\|uses-native-library" >&2 || true)
}
link --debug-mode -o "$out/tests.apk"
assets=()
[ -z "$bundle" ] || { mkdir -p "$out/pack/assets" && cp -r "$bundle" "$out/pack/assets/bundle" && assets=(-A "$out/pack/assets"); }
link "${debug[@]}" "${assets[@]}" --proguard "$out/manifest.pro" -o "$out/unaligned.apk"

# Classes, and the tests of Kotlin and of every screen with the real runtime behind it.
printf '%s\n' "android_merged_manifest=$out/AndroidManifest.xml" "android_resource_apk=$out/tests.apk" \
    "android_custom_package=$package" > "$out/test/com/android/tools/test_config.properties"
maven $goal

mkdir -p "$out/dex"
(cd "$out/maven/classes" && find . -name '*.class' -print0 | sort -z | xargs -0 zip -q -FS "$out/classes.jar")
jdk=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")  # android-all has no java.lang
java "${brief[@]}" -cp "$out/downloads/r8.jar" com.android.tools.r8.R8 --release --min-api $min --lib "$out/downloads/android-all.jar" --lib "$jdk" \
    --pg-conf app/proguard-rules.pro --pg-conf "$out/manifest.pro" --output "$out/dex" "$out/classes.jar" \
    "$out"/lib/tensorflow-lite{,-api,-gpu,-gpu-api}.jar "$out/downloads/kotlin-stdlib.jar" \
    2>&1 | { grep -vi "META-INF/MANIFEST.MF\|kotlin.metadata" || true; }

# Packed: the libraries of the processors that phones and emulators have.
for archive in tensorflow-lite tensorflow-lite-gpu; do
    unzip -q -o "$out/downloads/$archive.aar" 'jni/arm64-v8a/*' 'jni/x86_64/*' -d "$out/pack"
done
mkdir -p "$out/pack/lib" && cp -r "$out"/pack/jni/* "$out/pack/lib/"
(cd "$out/dex" && zip -q "$out/unaligned.apk" classes*.dex)
(cd "$out/pack" && zip -q -r "$out/unaligned.apk" lib)
zipalign -f -p 4 "$out/unaligned.apk" "$out/aligned.apk"
key=$HOME/.android/debug.keystore  # the key that Android Studio signs with, so that either build updates the other
[ -f "$key" ] || { mkdir -p "$(dirname "$key")" && keytool -genkeypair -keystore "$key" -storetype PKCS12 -storepass android \
    -keypass android -alias androiddebugkey -dname 'CN=Android Debug,O=Android,C=US' -keyalg RSA -keysize 2048 -validity 10950 2> /dev/null; }
apk=$PWD/build/demo.apk
apksigner sign --ks "$key" --ks-pass pass:android --ks-key-alias androiddebugkey --out "$apk" "$out/aligned.apk"

# What was made.
apksigner verify --verbose "$apk" | sed -n '/^Verifies/p;/v[23] scheme.*true/p'
aapt2 dump badging "$apk" | grep -E "^(package|sdkVersion|minSdkVersion|targetSdkVersion|application-label:|launchable-activity|uses-permission|native-code)"
aapt2 dump xmltree --file AndroidManifest.xml "$apk" | sed -n 's/.*:name(.*)="\(\.[^"]*Activity\)" .*/activity: \1/p'
unzip -l "$apk" | awk '/lib\/|\.dex/ {print $4 ": " $1 " bytes"}'
echo "$apk: $(stat -c %s "$apk") bytes"
