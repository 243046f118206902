package dev.tfcompress.demo

import dev.tfcompress.demo.bundle.Bundle
import dev.tfcompress.demo.bundle.Folder
import dev.tfcompress.demo.bundle.Import
import java.io.File
import java.io.InputStream
import java.nio.file.Files

/** Files of the tests. */
object Given {
    fun stream(name: String): InputStream = Given::class.java.classLoader!!.getResourceAsStream(name)!!

    fun text(name: String): String = stream(name).use { it.readBytes().decodeToString() }

    /** A fresh copy of the bundle of three models that tests/android_demo/sample.py wrote. */
    fun folder(): File {
        val folder = File(Files.createTempDirectory("demo").toFile(), "bundle")
        stream("bundle.zip").use { Import.unzip(it, folder) }
        folder.deleteOnExit()
        return folder
    }

    fun bundle(folder: File = folder()): Bundle = Bundle.open(Folder(folder))

    /** The manifest with a change in its text. */
    fun changed(folder: File, from: String, to: String): File {
        val manifest = File(folder, "manifest.json")
        val text = manifest.readText()
        check(from in text) { "$from is not in the manifest" }
        manifest.writeText(text.replace(from, to))
        return folder
    }
}
