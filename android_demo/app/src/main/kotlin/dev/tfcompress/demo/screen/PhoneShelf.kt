package dev.tfcompress.demo.screen

import android.content.Context
import android.content.res.AssetManager
import android.net.Uri
import dev.tfcompress.demo.bundle.Bundle
import dev.tfcompress.demo.bundle.BundleException
import dev.tfcompress.demo.bundle.Folder
import dev.tfcompress.demo.bundle.Import
import dev.tfcompress.demo.bundle.Manifest
import dev.tfcompress.demo.bundle.Store
import dev.tfcompress.demo.tensor.TensorInfo
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer

/**
 * Bundles of the app: the one that was opened last or pushed over adb, whichever is newer, else the one in the APK.
 *
 *     adb push bundle /sdcard/Android/data/dev.tfcompress.demo/files/bundle
 */
class PhoneShelf(private val context: Context) : Shelf {
    override fun open(): Bundle? {
        val folders = listOfNotNull(imported, context.getExternalFilesDir(null)?.let { File(it, "bundle") })
        val newest = folders.filter { File(it, Manifest.FILE).isFile }.maxByOrNull { File(it, Manifest.FILE).lastModified() }
        if (newest != null) return Bundle.open(Folder(newest))
        val builtIn = Assets(context.assets, "bundle")
        return if (builtIn.has(Manifest.FILE)) Bundle.open(builtIn) else null
    }

    /** Unpacks a zip file that the user picked. */
    fun take(uri: Uri): Bundle {
        val source = try {
            context.contentResolver.openInputStream(uri)
        } catch (error: IOException) {
            throw BundleException("the file cannot be read", error)
        } catch (error: SecurityException) {
            throw BundleException("this app may not read the file", error)
        }
        return (source ?: throw BundleException("the file cannot be read")).use { Import.unzip(it, imported) }
            .also { File(imported, Manifest.FILE).setLastModified(System.currentTimeMillis()) }
    }

    private val imported: File get() = File(context.filesDir, "bundle")
}

/** A folder of the APK. */
class Assets(private val assets: AssetManager, private val folder: String) : Store {
    fun has(file: String): Boolean = try {
        assets.open("$folder/$file").close()
        true
    } catch (_: FileNotFoundException) {
        false
    }

    override fun read(file: String): ByteArray = assets.open("$folder/$file").use { it.readBytes() }

    override fun map(file: String): ByteBuffer {
        val content = read(file)
        return TensorInfo.direct(content.size).put(content).also { it.rewind() }
    }
}
