plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

val runtime = providers.gradleProperty("runtime").get()
require(runtime in listOf("litert", "tflite")) { "runtime must be litert or tflite, it is $runtime" }

android {
    namespace = "dev.tfcompress.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.tfcompress.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    // One constant tells the libraries apart; all other sources are the same.
    sourceSets["main"].kotlin.srcDir("src/$runtime/kotlin")

    providers.gradleProperty("bundle").orNull?.takeIf { it.isNotBlank() }?.let { folder ->
        val copied = layout.buildDirectory.dir("bundle")
        val copy = tasks.register<Sync>("copyBundle") {
            from(folder) { into("bundle") }
            into(copied)
        }
        sourceSets["main"].assets.srcDir(copied)
        tasks.named("preBuild") { dependsOn(copy) }
    }

    // Models are mapped into memory as they are.
    androidResources { noCompress += "tflite" }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all { it.systemProperty("javacpp.platform", System.getProperty("javacpp.platform", "linux-x86_64")) }
        }
    }
}

kotlin {
    compilerOptions { jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_17) }
}

dependencies {
    implementation(if (runtime == "litert") libs.bundles.litert else libs.bundles.tflite)
    testImplementation(libs.junit)
    testImplementation(libs.robolectric)
    testImplementation(libs.javacpp.tflite)
}
